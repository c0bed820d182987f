"""Alembic's commands as coroutines, which work inside a running event loop and from an installed package."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command, context, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from . import schema
from .databases import Database
from .databases import database as default_database
from .driver_errors import translated
from .errors import DatabaseError

VERSION_TABLE = "sqlmodel_alembic_async_version"  # Of our own, so that a host's Alembic can share the database.
VERSION = sa.Table(VERSION_TABLE, sa.MetaData(), sa.Column("version_num", sa.String(32)))

_PACKAGE = Path(__file__).parent
_TURN = 0.02  # Seconds between two looks whether another task of this process has ended its migration.

_alembic = threading.Lock()  # Held for an instant, to look who may run Alembic, and to change that.
_owner: asyncio.AbstractEventLoop | None = None  # The event loop that runs Alembic.


def _after_fork_in_child() -> None:
    # A child process has no thread that would end the migration, or release the lock. logging resets its locks, too.
    global _owner
    _alembic._at_fork_reinit()  # type: ignore[attr-defined]  # not in typeshed
    _owner = None


getattr(os, "register_at_fork", dict)(after_in_child=_after_fork_in_child)  # Only Unix has it, as it has fork().

_Work = Callable[[sa.Connection, Callable[[], None]], None]


async def upgrade(revision: str = "head", *, database: Database = default_database) -> None:
    """Bring the tables to this revision, and finish what an interrupted migration left; wait for other processes.

    Once it has begun to change the database, it runs to its end: a cancellation is raised then. An env.py may await it
    before its own `context.configure`. Do not run Alembic commands of your own in this process at the same time:
    Alembic keeps the command that is under way in module globals, and would mix up the two databases.

    Raises:
        ConflictError: On SQLite, rows would refer to rows that do not exist.
        DatabaseError: A newer version of this package migrated the database, the version table holds what is no
            revision, or a table that is not this package's has the name of one of its tables.
        TransactionConflictError: Another transaction uses the tables, and has not ended in time.
        ValueError: There is no such revision, or no way to it.

    """
    await _run(database, command.upgrade, revision)


async def downgrade(revision: str, *, database: Database = default_database) -> None:
    """Take the tables back to this revision; "base" removes them, with all that is in them.

    Once it has begun to change the database, it runs to its end: a cancellation is raised then.

    Raises:
        ConflictError: On SQLite, rows would refer to rows that do not exist.
        DatabaseError: A newer version of this package migrated the database, the version table holds what is no
            revision, or a table that is not this package's has the name of one of its tables, or a foreign key to one.
        TransactionConflictError: Another transaction uses the tables, and has not ended in time.
        ValueError: There is no such revision, or no way to it.

    """
    await _run(database, command.downgrade, revision)


async def current(*, database: Database = default_database) -> str | None:
    """Return the revision the tables are at, or None where they were never migrated.

    Raises:
        DatabaseError: The version table holds what is no revision.

    """
    with translated(OSError):
        async with database.engine.connect() as connection:
            return await connection.run_sync(_current)


def head() -> str | None:
    """Return the newest revision that this version of the package knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


async def run_to_the_end(database: Database, work: _Work) -> None:
    """Run the work on a connection. It gets a function to call when it begins: from then on no cancellation ends it."""
    begun = False

    def begins() -> None:
        nonlocal begun
        begun = True

    async def run() -> None:
        async with database.engine.connect() as connection:
            await connection.run_sync(work, begins)

    task = asyncio.create_task(run())
    cancellation = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            if cancellation is None and not begun:
                task.cancel()
            cancellation = error
    if cancellation is None:
        return task.result()
    raise cancellation from None if task.cancelled() else task.exception()


async def _run(database: Database, order: Callable[[Config, str], None], revision: str) -> None:
    def run(connection: sa.Connection, begins: Callable[[], None]) -> None:
        config = _config()
        config.attributes.update(connection=connection, begins=begins)
        try:
            with translated(), _outer_proxies_kept():
                order(config, revision)
        except CommandError as error:
            raise _refusal(connection, revision, error) from error

    if not revision:
        raise ValueError('the revision must not be empty: "head" is the newest one')
    async with _alone():
        with translated(OSError):
            await run_to_the_end(database, run)


def _refusal(connection: sa.Connection, revision: str, error: CommandError) -> Exception:
    if unknown := [revision for revision in _stored(connection) if revision not in _known()]:
        return DatabaseError(
            f"the database is at revision {', '.join(unknown)}, which this version of the package does not know:"
            " a newer version migrated the database, install that one"
        )
    return ValueError(f"can not migrate to {revision!r}: {error}")


def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    # Alembic keeps its context in module globals: one process runs one command at a time, whatever its event loops.
    loop = asyncio.get_running_loop()
    while not _take_over(loop):  # noqa: ASYNC110  # an asyncio.Event serves one event loop only
        await asyncio.sleep(_TURN)
    try:
        yield
    finally:
        _let_go(loop)


def _take_over(loop: asyncio.AbstractEventLoop) -> bool:
    global _owner
    with _alembic:
        # What a closed event loop has not ended will never end.
        is_free = _owner is None or _owner.is_closed()
        if is_free:
            _owner = loop
    return is_free


def _let_go(loop: asyncio.AbstractEventLoop) -> None:
    global _owner
    with _alembic:
        if _owner is loop:
            _owner = None


@contextmanager
def _outer_proxies_kept() -> Iterator[None]:
    """Give `alembic.context` and `alembic.op` back to the env.py, a host's, that awaits this command."""
    outer = [proxy for module in (context, op) if (proxy := getattr(module, "_proxy", None)) is not None]
    try:
        yield
    finally:
        for proxy in outer:
            proxy._install_proxy()


def _config() -> Config:
    config = Config()
    installed = _PACKAGE / "alembic"
    # A checkout has the folder beside the package. Config reads "%" as the beginning of a name.
    folder = installed if installed.is_dir() else _PACKAGE.parent / "alembic"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _current(connection: sa.Connection) -> str | None:
    return ", ".join(_stored(connection)) or None


def _stored(connection: sa.Connection) -> list[str]:
    # More than one only where others wrote into the table.
    if not schema.exists(connection, VERSION):
        return []
    options = {"version_table": VERSION_TABLE, "version_table_schema": connection.schema_for_object(VERSION)}
    stored = MigrationContext.configure(connection, opts=options).get_current_heads()
    if len(set(stored)) < len(stored) or any(map(_is_no_revision, stored)):
        raise DatabaseError(f"the table {VERSION_TABLE} holds what is no revision: write the right one into it")
    return sorted(stored)


def _is_no_revision(stored: object) -> bool:
    # Alembic reads symbols and abbreviations, too, but does not find them again in the table.
    is_short = any(name.startswith(str(stored)) for name in _known() - {stored})
    return not isinstance(stored, str) or is_short or stored in ("base", "head", "heads")
