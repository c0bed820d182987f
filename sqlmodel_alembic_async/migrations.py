"""Run Alembic's commands as coroutines: inside a running event loop, and from an installed package."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from . import schema
from .command_lock import one_command_per_process, outer_proxies_restored
from .databases import Database
from .databases import database as default_database
from .driver_errors import translated
from .errors import DatabaseError
from .models import TABLES

VERSION_TABLE = "sqlmodel_alembic_async_version"  # Not Alembic's default: an application may use that one.
VERSION = sa.Table(VERSION_TABLE, sa.MetaData(), sa.Column("version_num", sa.String(32)))

_PACKAGE = Path(__file__).parent
_COLUMNS = {"id", "name", "name_key", "version"}  # Every revision of both tables has them.

_Work = Callable[[sa.Connection, Callable[[], None]], None]


async def upgrade(revision: str = "head", *, database: Database = default_database) -> None:
    """Migrate the tables up to a revision; first complete a migration that was interrupted.

    It waits while another process migrates the database. After it has begun to change the database, it runs to its end:
    a cancellation is raised only then.

    An env.py may await it before its own `context.configure`. Do not run other Alembic commands in this process at the
    same time: Alembic keeps the running command in module globals.

    Args:
        revision: A revision, "head" for the newest one, or a relative one such as "+1".
        database: The database; by default the one of DATABASE_URL.

    Raises:
        ConflictError: On SQLite, rows would refer to rows that do not exist. Nothing is migrated.
        DatabaseError: A newer version of this package migrated the database, the version table contains a value that is
            not a revision, a different table has the name of one of this package's tables, the URL names no database,
            or the user lacks a right.
        TransactionConflictError: Another process is changing the tables, or another transaction uses them, and did not
            end in time.
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

    An env.py may await it before its own `context.configure`. Do not run other Alembic commands in this process at the
    same time: Alembic keeps the running command in module globals.

    Args:
        revision: A revision, "base" for the state before the first one, or a relative one such as "-1".
        database: The database; by default the one of DATABASE_URL.

    Raises:
        ConflictError: On SQLite, rows would refer to rows that do not exist. Nothing is migrated.
        DatabaseError: A newer version of this package migrated the database, the version table contains a value that is
            not a revision, a different table has the name of one of this package's tables, another table has a foreign
            key to one of them, the URL names no database, or the user lacks a right.
        TransactionConflictError: Another process is changing the tables, or another transaction uses them, and did not
            end in time.
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
        DatabaseError: The version table contains a value that is not a revision, the URL names no database, or the
            database refused the statement for another reason.
        RuntimeError: The process was forked while its parent had this SQLite file open.

    """
    with translated(OSError):
        async with database.engine.connect() as connection:
            return await connection.run_sync(_current)


def head() -> str | None:
    """Return the newest revision of this version of the package."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def known_revisions() -> set[str]:
    """Return every revision of this version of the package."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def include_name(name: str | None, type_: str, parent_names: Mapping[Any, str | None]) -> bool:
    """Leave this package's tables to this package, in an application's own `context.configure(include_name=...)`.

    It returns False for the tables `user` and `pet` in the database's default schema, for the version table of this
    package in any schema, and for what belongs to these tables. It excludes what is in the database; include_object()
    also excludes what is in the application's metadata. Use both, or call them in functions of your own.
    """
    table = name if type_ == "table" else parent_names.get("table_name")
    return table != VERSION_TABLE and not (table in TABLES and parent_names.get("schema_name") is None)


def include_object(object_: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
    """Leave this package's tables to this package, in an application's own `context.configure(include_object=...)`.

    It returns False for the tables `user` and `pet` in the database's default schema, for the version table of this
    package, for what belongs to these tables, and for the tables of this package in a schema of their own. A table
    `user` or `pet` of the application in another schema is included.
    """
    table = getattr(object_, "table", object_)
    if not isinstance(table, sa.Table) or table.name not in (*TABLES, VERSION_TABLE):
        return True
    return table.schema is not None and table.name != VERSION_TABLE and not set(table.columns.keys()) >= _COLUMNS


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
            with outer_proxies_restored():
                alembic_command(config, revision)
        except CommandError as error:
            raise _migration_error(connection, revision, error) from error

    if not revision:
        raise ValueError('the revision must not be empty: use "head" for the newest one')
    async with one_command_per_process():
        with translated(OSError):
            await run_to_the_end(database, run)


def _migration_error(connection: sa.Connection, revision: str, error: CommandError) -> Exception:
    known = known_revisions()
    if unknown := [revision for revision in _stored_revisions(connection) if revision not in known]:
        return DatabaseError(
            f"the database is at revision {', '.join(unknown)}, which this version of the package does not know:"
            " a newer version migrated the database, install that version"
        )
    return ValueError(f"cannot migrate to {revision!r}: {error}")


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
    """Return the stored revisions: at most one, unless another program wrote into the table."""
    if not schema.exists(connection, VERSION):
        return []
    options = {"version_table": VERSION_TABLE, "version_table_schema": connection.schema_for_object(VERSION)}
    stored = MigrationContext.configure(connection, opts=options).get_current_heads()
    if len(set(stored)) < len(stored) or not all(map(_can_be_revision, stored)):
        raise DatabaseError(
            f"the table {VERSION_TABLE} contains a value that is not a revision: write the right revision into it"
        )
    return sorted(stored)


def _can_be_revision(stored: object) -> bool:
    """Return whether Alembic can update this value: not "head" or an abbreviation, although Alembic reads them."""
    if not isinstance(stored, str) or stored in ("base", "head", "heads"):
        return False
    return not any(revision.startswith(stored) for revision in known_revisions() - {stored})
