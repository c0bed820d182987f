"""The environment that Alembic loads for each command that needs the models or the database."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.config import fileConfig
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlmodel import SQLModel

from sqlmodel_alembic_async import columns, schema
from sqlmodel_alembic_async.databases import Database
from sqlmodel_alembic_async.errors import ConflictError
from sqlmodel_alembic_async.migrations import VERSION_TABLE, run_to_the_end
from sqlmodel_alembic_async.models import TABLES

config = context.config


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Do not reflect other applications' tables: some have column types that are unknown here."""
    return kind != "table" or name in TABLES


def include_object(item: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
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
    "include_name": include_name,
    "include_object": include_object,
    "render_item": render_item,
    # A revision that is generated on any database must also run on SQLite, which needs a new table for most changes.
    "render_as_batch": True,
}


def run_offline() -> None:
    """Print the SQL (`--sql`) without a driver and without a connection."""
    url = Database().url
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection: sa.Connection, mark_begun: Callable[[], None]) -> None:
    """Migrate on this connection, one process at a time; call `mark_begun` as soon as the lock is held."""
    lock = _sqlite if connection.dialect.name == "sqlite" else schema.alone
    with lock(connection):
        mark_begun()
        # Alembic does not commit a transaction that has begun before configure(): schema.alone() commits it.
        context.configure(connection=connection, transactional_ddl=connection.in_transaction(), **OPTIONS)
        _correct_version(connection)
        context.run_migrations()


@contextmanager
def _sqlite(connection: sa.Connection) -> Iterator[None]:
    # A batch migration drops the old table after it has copied the rows. With foreign keys enabled, this would delete
    # or change the rows that refer to it. SQLite ignores this PRAGMA inside a transaction.
    driver = connection.connection
    try:
        driver.cursor().execute("PRAGMA foreign_keys = OFF")
        with schema.alone(connection):
            before = _orphans(connection)
            yield
            if orphans := _orphans(connection) - before:
                raise ConflictError(f"{len(orphans)} rows would refer to rows that do not exist: nothing was migrated")
    finally:
        if not connection.invalidated:
            driver.cursor().execute("PRAGMA foreign_keys = ON")


def _orphans(connection: sa.Connection) -> set[tuple[Any, ...]]:
    # This checks all tables of the file. Other applications' tables may already have such rows.
    return set(map(tuple, connection.exec_driver_sql("PRAGMA foreign_key_check")))


def _correct_version(connection: sa.Connection) -> None:
    """If the first revision was interrupted, correct the stored version so that Alembic runs the revision again.

    MariaDB and MySQL commit each DDL statement. If the version is stored but a table is missing, a downgrade was
    interrupted. If no version is stored but there are empty tables, an upgrade was interrupted.
    """
    migration = context.get_context()
    plan, heads = migration.opts["fn"], migration.get_current_heads()
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return
    version = sa.table(VERSION_TABLE, sa.column("version_num"))
    for first in migration.script.get_bases():
        tables = getattr(migration.script.get_revision(first).module, "TABLES", ())
        existing = [table for table in tables if schema.exists(connection, table)]
        half_dropped = heads == (first,) and len(existing) < len(tables)
        half_created = heads == () and existing and all(_is_own_and_empty(connection, table) for table in existing)
        if half_dropped and plan.__name__ == "upgrade":
            connection.execute(version.delete())
        if half_created and plan.__name__ == "downgrade" and plan((first,), migration):
            connection.execute(version.insert().values(version_num=first))


def _is_own_and_empty(connection: sa.Connection, table: sa.Table) -> bool:
    rows = sa.select(sa.literal(1)).select_from(table).limit(1)
    return schema.is_same(connection, table) and connection.execute(rows).first() is None


async def run_online() -> None:
    """Migrate the database that DATABASE_URL names."""
    async with Database() as database:
        await run_to_the_end(database, run_on)


if config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    run_offline()
elif (given := config.attributes.get("connection")) is not None:
    run_on(given, config.attributes.get("mark_begun", lambda: None))
else:
    asyncio.run(run_online())
