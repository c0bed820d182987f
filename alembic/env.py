"""What Alembic runs for every command that needs the models or the database."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging.config import fileConfig
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.util import CommandError
from sqlmodel import SQLModel

from sqlmodel_alembic_async import columns, schema
from sqlmodel_alembic_async.databases import Database
from sqlmodel_alembic_async.engines import BEGIN
from sqlmodel_alembic_async.errors import ConflictError
from sqlmodel_alembic_async.migrations import VERSION, VERSION_TABLE, run_to_the_end
from sqlmodel_alembic_async.models import TABLES

config = context.config


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


def run_on(connection: sa.Connection, begins: Callable[[], None]) -> None:
    """Migrate on this connection, one process at a time; `begins` is called when it is this one's turn."""
    if connection.dialect.name == "sqlite" and _finds_nothing_to_do(connection):
        return
    connection.execution_options(**{BEGIN: "IMMEDIATE"})
    with _foreign_keys_off(connection), schema.alone(connection):
        begins()
        _configure(connection)
        if not _has_nothing_to_do(connection):  # Another process may have done it meanwhile.
            with _no_new_orphans(connection):
                _correct_version(connection)
                context.run_migrations()


def _finds_nothing_to_do(connection: sa.Connection) -> bool:
    # Without the lock, for which it would wait for every writer. A server has one for migrations only.
    connection.execution_options(**{BEGIN: "DEFERRED"})
    with connection.begin():
        _configure(connection)
        return _has_nothing_to_do(connection)


def _configure(connection: sa.Connection) -> None:
    # Told of the connection only in a transaction, Alembic knows that it is not its own to commit.
    context.configure(
        connection=connection,
        transactional_ddl=connection.in_transaction(),
        version_table_schema=connection.schema_for_object(VERSION),
        **OPTIONS,
    )


@contextmanager
def _foreign_keys_off(connection: sa.Connection) -> Iterator[None]:
    # A batch migration rebuilds a table by dropping the old one: with foreign keys on, its children would go with it.
    # SQLite ignores this setting inside a transaction.
    if connection.dialect.name != "sqlite":
        yield
        return
    driver = connection.connection
    try:
        driver.cursor().execute("PRAGMA foreign_keys = OFF")
        yield
    finally:
        if not connection.invalidated:
            try:
                driver.cursor().execute("PRAGMA foreign_keys = ON")
            except BaseException:  # A cancellation, too: nobody is to get this connection without foreign keys.
                connection.invalidate()
                raise


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
    # A host's table may have some of its own already.
    ours = [SQLModel.metadata.tables[name] for name in TABLES]
    names = {*TABLES}.union(*(schema.referring_tables(connection, table) for table in ours))
    found = set()
    for name in names:
        # SQLite can not check a host's table that has a foreign key to columns that are not unique.
        with suppress(sa.exc.OperationalError):
            rows = connection.execute(sa.text("SELECT * FROM pragma_foreign_key_check(:name)"), {"name": name})
            found.update(map(tuple, rows))
    return found


def _has_nothing_to_do(connection: sa.Connection) -> bool:
    migration = context.get_context()
    if migration.opts["fn"].__name__ not in ("upgrade", "downgrade"):
        return False
    heads = migration.get_current_heads()
    known = {script.revision for script in migration.script.walk_revisions()}
    if not {*heads} <= known or len({*heads}) < len(heads):
        raise CommandError(f"Can't locate revision identified by {', '.join(map(repr, heads))}")
    correct = _correct_heads(connection)
    steps = _steps(heads if correct is None else correct)
    return correct is None and not steps and schema.exists(connection, VERSION)


def _steps(heads: tuple[str, ...]) -> list[Any]:
    """Return the steps of this command from these revisions."""
    migration = context.get_context()
    try:
        return list(migration.opts["fn"](heads, migration))
    except AssertionError as error:  # What Alembic raises for some that are none.
        raise CommandError("there is no such revision") from error


def _correct_heads(connection: sa.Connection) -> tuple[str, ...] | None:
    """Return where an interrupted step of the first revision began: from there Alembic is to run it again.

    MariaDB and MySQL commit each DDL statement. A version without all of its tables comes from a downgrade, tables
    without a version from an upgrade.
    """
    migration = context.get_context()
    plan, heads = migration.opts["fn"].__name__, migration.get_current_heads()
    if not schema.exists(connection, VERSION):
        return None
    for first in migration.script.get_bases():
        left = _left(connection, first)
        if plan == "upgrade" and heads == (first,) and len(left) < len(_tables(first)):
            return ()
        half_created = schema.commits_each_statement(connection) and heads == () and left
        if plan == "downgrade" and half_created and all(schema.is_same(connection, table) for table in left):
            return (first,)
    return None


def _correct_version(connection: sa.Connection) -> None:
    correct = _correct_heads(connection)
    if correct == ():
        connection.execute(VERSION.delete())
    for first in correct or ():
        # Tables with rows are in use: create_tables() made them.
        if _steps((first,)) and schema.drop_unused(connection, _left(connection, first)):
            connection.execute(VERSION.insert().values(version_num=first))


def _tables(revision: str) -> tuple[sa.Table, ...]:
    return getattr(context.script.get_revision(revision).module, "TABLES", ())


def _left(connection: sa.Connection, revision: str) -> list[sa.Table]:
    return [table for table in _tables(revision) if schema.exists(connection, table)]


async def run_online() -> None:
    """Migrate the database that DATABASE_URL names."""
    async with Database() as database:
        await run_to_the_end(database, run_on)


if config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    run_offline()
elif (given := config.attributes.get("connection")) is not None:
    run_on(given, config.attributes.get("begins", lambda: None))
else:
    asyncio.run(run_online())
