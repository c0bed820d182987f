"""What Alembic runs for every command that needs the models or the database."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from logging.config import fileConfig
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlmodel import SQLModel

from sqlmodel_alembic_async import columns
from sqlmodel_alembic_async.databases import Database
from sqlmodel_alembic_async.engines import BEGIN
from sqlmodel_alembic_async.errors import ConflictError, TransactionConflictError
from sqlmodel_alembic_async.migrations import VERSION_TABLE
from sqlmodel_alembic_async.models import TABLES

config = context.config

_LOCK = 0x5A17E7  # PostgreSQL's advisory locks are numbers; this one is ours alone.
_LOCK_TIMEOUT = 3600  # Seconds that MariaDB lets one process wait for another one's migration.


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Do not even look at the host application's tables: some have types that only their owner knows."""
    return kind != "table" or name in TABLES


def include_object(item: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
    """Leave the host application's models to the host application."""
    return kind != "table" or name in TABLES


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | bool:
    """Write our column types as a revision spells them."""
    if kind == "type" and type(item).__module__ == columns.__name__:
        return f"columns.{item!r}"
    return False


OPTIONS: dict[str, Any] = {
    "target_metadata": SQLModel.metadata,
    "version_table": VERSION_TABLE,
    "include_name": include_name,
    "include_object": include_object,
    "render_item": render_item,
    # A revision written on any engine must run on SQLite, which can alter a table only by building it anew.
    "render_as_batch": True,
}


def run_offline() -> None:
    """Print the SQL (`--sql`): no driver, no connection."""
    url = Database().url
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection: sa.Connection) -> None:
    """Migrate on this connection, one process at a time."""
    guard = {"sqlite": _sqlite, "postgresql": _postgresql}.get(connection.dialect.name, _mysql)
    with guard(connection):
        # Told of the connection only now, Alembic knows that the transaction is not its own to commit.
        context.configure(connection=connection, transactional_ddl=connection.in_transaction(), **OPTIONS)
        context.run_migrations()


@contextmanager
def _sqlite(connection: sa.Connection) -> Iterator[None]:
    # A batch migration rebuilds a table by dropping the old one: with foreign keys on, its children would go with it.
    # SQLite ignores this setting inside a transaction.
    driver = connection.connection
    driver.cursor().execute("PRAGMA foreign_keys = OFF")
    try:
        # BEGIN IMMEDIATE: another process waits here.
        with connection.begin():
            before = _orphans(connection)
            yield
            if orphans := _orphans(connection) - before:
                raise ConflictError(f"{len(orphans)} rows would refer to rows that do not exist: nothing was migrated")
    finally:
        driver.cursor().execute("PRAGMA foreign_keys = ON")


def _orphans(connection: sa.Connection) -> set[tuple[Any, ...]]:
    # Of the whole file: a host's table may have some of its own already.
    return set(map(tuple, connection.exec_driver_sql("PRAGMA foreign_key_check")))


@contextmanager
def _postgresql(connection: sa.Connection) -> Iterator[None]:
    with connection.begin():
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        yield


@contextmanager
def _mysql(connection: sa.Connection) -> Iterator[None]:
    # The lock is the session's: each DDL statement commits.
    name = sa.func.concat(sa.func.left(sa.func.sha1(sa.func.database()), 16), ":", VERSION_TABLE)
    if not connection.scalar(sa.select(sa.func.get_lock(name, _LOCK_TIMEOUT))):
        raise TransactionConflictError("another process is migrating this database, and did not end in time")
    connection.commit()
    try:
        yield
        connection.commit()
    finally:
        connection.rollback()
        connection.execute(sa.select(sa.func.release_lock(name)))
        connection.commit()


async def run_online() -> None:
    """Migrate the database that DATABASE_URL names."""
    async with Database() as database, database.engine.connect() as connection:
        await connection.execution_options(**{BEGIN: "IMMEDIATE"})
        await connection.run_sync(run_on)


if config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    run_offline()
elif (given := config.attributes.get("connection")) is not None:
    run_on(given)
else:
    asyncio.run(run_online())
