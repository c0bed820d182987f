"""Run Alembic's commands as coroutines: inside a running event loop, and from an installed package."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from .databases import Database
from .databases import database as default_database
from .driver_errors import translated
from .engines import BEGIN
from .errors import DatabaseError

VERSION_TABLE = (
    "sqlmodel_alembic_async_version"  # Not Alembic's default: the application's own Alembic can use the database, too.
)

_PACKAGE = Path(__file__).parent
_LOCK_POLL_INTERVAL = 0.02  # Seconds between two attempts to take the lock.
_alembic_lock = threading.Lock()

# In a forked child process, the thread that holds the lock does not exist. The logging module resets its locks in the
# same way. Only Unix has fork() and register_at_fork().
getattr(os, "register_at_fork", dict)(after_in_child=_alembic_lock._at_fork_reinit)  # type: ignore[attr-defined]  # not in typeshed

_Work = Callable[[sa.Connection, Callable[[], None]], None]


async def upgrade(revision: str = "head", *, database: Database = default_database) -> None:
    """Migrate the tables up to a revision; first complete a migration that was interrupted.

    It waits while another process migrates the database. After it has begun to change the database, it runs to its end:
    a cancellation is raised only then.

    Args:
        revision: A revision, "head" for the newest one, or a relative one such as "+1".
        database: The database; by default the one of DATABASE_URL.

    Raises:
        ConflictError: On SQLite, rows would refer to rows that do not exist. Nothing is migrated.
        DatabaseError: A newer version of this package migrated the database, or a different table has the name of one
            of this package's tables.
        TransactionConflictError: Another process is changing the tables, and did not end in time.
        DatabaseUnavailableError: No connection could be opened, or it was lost.
        StorageError: The storage is full or read-only, or the file cannot be opened.
        RuntimeError: The process was forked while its parent had this SQLite file open.
        ValueError: `revision` is empty or unknown, or there is no path to it from the current revision.

    """
    await _run(database, command.upgrade, revision)


async def downgrade(revision: str, *, database: Database = default_database) -> None:
    """Migrate the tables down to a revision; "base" drops them with all their rows.

    It waits while another process migrates the database. After it has begun to change the database, it runs to its end:
    a cancellation is raised only then.

    Args:
        revision: A revision, "base" for the state before the first one, or a relative one such as "-1".
        database: The database; by default the one of DATABASE_URL.

    Raises:
        ConflictError: On SQLite, rows would refer to rows that do not exist. Nothing is migrated.
        DatabaseError: A newer version of this package migrated the database, or a different table has the name of one
            of this package's tables.
        TransactionConflictError: Another process is changing the tables, and did not end in time.
        DatabaseUnavailableError: No connection could be opened, or it was lost.
        StorageError: The storage is full or read-only, or the file cannot be opened.
        RuntimeError: The process was forked while its parent had this SQLite file open.
        ValueError: `revision` is empty or unknown, or there is no path to it from the current revision.

    """
    await _run(database, command.downgrade, revision)


async def current(*, database: Database = default_database) -> str | None:
    """Return the current revision of the tables, or None if they were never migrated.

    Raises:
        DatabaseUnavailableError: No connection could be opened, or it was lost.
        StorageError: The storage is corrupt, or the file cannot be opened.
        DatabaseError: The database refused the statement for another reason.
        RuntimeError: The process was forked while its parent had this SQLite file open.

    """
    with translated(OSError):
        async with database.engine.connect() as connection:
            return await connection.run_sync(_current)


def head() -> str | None:
    """Return the newest revision of this version of the package."""
    return ScriptDirectory.from_config(_config()).get_current_head()


async def run_to_the_end(database: Database, work: _Work) -> None:
    """Run a function on a connection; do not cancel it after it has begun to change the database.

    Args:
        database: The database to connect to.
        work: A function of the connection and of a callback, which it calls immediately before its first change.
            A cancellation before this call ends the work; a later one is raised when the work has ended.

    """
    has_begun = False

    def mark_begun() -> None:
        nonlocal has_begun
        has_begun = True

    async def run() -> None:
        async with database.engine.connect() as connection:
            await connection.execution_options(**{BEGIN: "IMMEDIATE"})
            await connection.run_sync(work, mark_begun)

    task = asyncio.create_task(run())
    cancellation = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            if cancellation is None and not has_begun:
                task.cancel()
            cancellation = error
    if cancellation is None:
        return task.result()
    raise cancellation from None if task.cancelled() else task.exception()


async def _run(database: Database, alembic_command: Callable[[Config, str], None], revision: str) -> None:
    def run(connection: sa.Connection, mark_begun: Callable[[], None]) -> None:
        config = _config()
        config.attributes.update(connection=connection, mark_begun=mark_begun)
        try:
            with translated():
                alembic_command(config, revision)
        except CommandError as error:
            raise _migration_error(connection, revision, error) from error

    if not revision:
        raise ValueError('the revision must not be empty: use "head" for the newest one')
    async with _one_command_per_process():
        with translated(OSError):
            await run_to_the_end(database, run)


def _migration_error(connection: sa.Connection, revision: str, error: CommandError) -> Exception:
    script = ScriptDirectory.from_config(_config())
    known = {script.revision for script in script.walk_revisions()}
    if unknown := [revision for revision in _stored_revisions(connection) if revision not in known]:
        return DatabaseError(
            f"the database is at revision {', '.join(unknown)}, which this version of the package does not know:"
            " a newer version migrated the database, install that version"
        )
    return ValueError(f"cannot migrate to {revision!r}: {error}")


@asynccontextmanager
async def _one_command_per_process() -> AsyncIterator[None]:
    # Alembic keeps its context in module globals, so that a process can run only one command at a time.
    while not _alembic_lock.acquire(blocking=False):  # noqa: ASYNC110  # an asyncio.Lock works in one event loop only
        await asyncio.sleep(_LOCK_POLL_INTERVAL)
    try:
        yield
    finally:
        _alembic_lock.release()


def _config() -> Config:
    config = Config()
    installed = _PACKAGE / "alembic"
    # In a checkout, the folder is next to the package. Config interpolates "%(name)s", so "%" is escaped.
    folder = installed if installed.is_dir() else _PACKAGE.parent / "alembic"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _current(connection: sa.Connection) -> str | None:
    return ", ".join(_stored_revisions(connection)) or None


def _stored_revisions(connection: sa.Connection) -> list[str]:
    # This package writes at most one revision. Other programs may have written more into the table.
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return sorted(context.get_current_heads())
