"""The environment that Alembic loads for each command that needs the models or the database."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from logging.config import fileConfig
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlmodel import SQLModel

from sqlmodel_alembic_async import columns, migration_plan, schema, schema_locks
from sqlmodel_alembic_async.databases import Database
from sqlmodel_alembic_async.engines import BEGIN
from sqlmodel_alembic_async.errors import ConflictError
from sqlmodel_alembic_async.migrations import VERSION, VERSION_TABLE, run_to_the_end
from sqlmodel_alembic_async.models import TABLES
from sqlmodel_alembic_async.start_errors import CONNECT_ERRORS, why_not_connected, why_not_migrated

config = context.config


def is_own_name(name: str | None, kind: str, parents: Any) -> bool:
    """Do not reflect other applications' tables: some have column types that are unknown here."""
    return kind != "table" or name in TABLES


def is_own_object(item: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
    """Ignore other applications' models."""
    return kind != "table" or name in TABLES


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | bool:
    """Render this package's column types as `columns.<type>` in a new revision."""
    if kind == "type" and type(item).__module__ == columns.__name__:
        return f"columns.{item!r}"
    return False


OPTIONS: dict[str, Any] = {
    "target_metadata": SQLModel.metadata,
    "version_table": VERSION_TABLE,
    "include_name": is_own_name,
    "include_object": is_own_object,
    "render_item": render_item,
    # A revision that is generated on any database must also run on SQLite, which needs a new table for most changes.
    "render_as_batch": True,
}


def run_offline() -> None:
    """Print the SQL (`--sql`) without a driver and without a connection."""
    with told(why_not_connected, *CONNECT_ERRORS):
        url = Database().url
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection: sa.Connection, mark_begun: Callable[[], None]) -> None:
    """Migrate on this connection, one process at a time; call `mark_begun` as soon as the lock is held."""
    if connection.dialect.name == "sqlite" and _is_done_without_lock(connection):
        return
    connection.execution_options(**{BEGIN: "IMMEDIATE"})
    with _foreign_keys_disabled(connection), schema_locks.alone(connection):
        mark_begun()
        _configure(connection)
        if not migration_plan.is_done(connection, context.get_context()):  # Another process may have done it meanwhile.
            with _no_new_orphans(connection):
                migration_plan.correct_version(connection, context.get_context())
                context.run_migrations()


def _is_done_without_lock(connection: sa.Connection) -> bool:
    # SQLite has one lock for all writers: do not wait for it without need. The servers' lock is for migrations only.
    connection.execution_options(**{BEGIN: "DEFERRED"})
    with connection.begin():
        _configure(connection)
        return migration_plan.is_done(connection, context.get_context())


def _configure(connection: sa.Connection) -> None:
    # Alembic does not commit a transaction that has begun before configure(): schema_locks.alone() commits it.
    context.configure(
        connection=connection,
        version_table_schema=connection.schema_for_object(VERSION),
        **OPTIONS,
    )


@contextmanager
def _foreign_keys_disabled(connection: sa.Connection) -> Iterator[None]:
    # A batch migration drops the old table after it has copied the rows. With foreign keys enabled, this would delete
    # or change the rows that refer to it. SQLite ignores this PRAGMA inside a transaction.
    if connection.dialect.name != "sqlite":
        yield
        return
    try:
        _execute(connection, "PRAGMA foreign_keys = OFF")
        yield
    finally:
        if not connection.invalidated:
            try:
                _execute(connection, "PRAGMA foreign_keys = ON")
            except BaseException:  # Also a cancellation: do not reuse this connection without foreign keys.
                connection.invalidate()
                raise


def _execute(connection: sa.Connection, statement: str) -> None:
    # Not by SQLAlchemy, which would begin a transaction. A cursor that is not closed keeps the file's WAL from being
    # removed with the last connection.
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(statement)


@contextmanager
def _no_new_orphans(connection: sa.Connection) -> Iterator[None]:
    if connection.dialect.name != "sqlite":
        yield
        return
    before = _orphans(connection)
    yield
    if orphans := _orphans(connection) - before:
        raise ConflictError(f"{len(orphans)} rows would refer to rows that do not exist: nothing was migrated")


def _orphans(connection: sa.Connection) -> set[tuple[Any, ...]]:
    # Other applications' tables may already have such rows.
    own_tables = [table for name in TABLES if schema.exists(connection, table := SQLModel.metadata.tables[name])]
    names = {table.name for table in own_tables}
    found = set()
    for name in names.union(*(schema.referring_tables(connection, table) for table in own_tables)):
        # SQLite cannot check a table with a foreign key to columns that are not unique.
        with suppress(sa.exc.OperationalError):
            rows = connection.execute(sa.text("SELECT * FROM pragma_foreign_key_check(:name)"), {"name": name})
            found.update(map(tuple, rows))
    return found


async def run_online() -> None:
    """Migrate the database that DATABASE_URL names."""
    async with Database() as database:
        with told(why_not_connected, *CONNECT_ERRORS):
            async with database.engine.connect():
                pass
        with told(why_not_migrated, Exception):
            await run_to_the_end(database, run_on)


@contextmanager
def told(reason: Callable[[Exception], str | None], *kinds: type[Exception]) -> Iterator[None]:
    """Exit with one line in place of a traceback, if this is the `alembic` command, without --raiseerr."""
    try:
        yield
    except kinds as error:
        is_command = config.cmd_opts is not None and not config.cmd_opts.raiseerr
        if is_command and (line := reason(error)):
            raise SystemExit(f"FAILED: {line}") from None
        raise


if config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    run_offline()
elif (given := config.attributes.get("connection")) is not None:
    run_on(given, config.attributes.get("mark_begun", lambda: None))
else:
    asyncio.run(run_online())
