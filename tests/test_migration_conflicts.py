"""Migrations beside a host's tables, other transactions, and unusual settings of an engine or a server."""

import asyncio
import contextlib
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    Database,
    DatabaseError,
    PetCreate,
    StorageError,
    TransactionConflictError,
    UserCreate,
    UserNotFoundError,
    count_pets,
    count_users,
    create_pet,
    create_user,
    migrations,
    schema,
)
from sqlmodel_alembic_async.engines.sqlite.cursor import Cursor
from sqlmodel_alembic_async.models import TABLES

from .migrating import VERSION_TABLE, add_revision, alembic, ask, ask_once, copy_migrations, table_names, versions
from .servers import new_database, on_server

Work = Callable[[Database], Awaitable[None]]

on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
on_mariadb = pytest.mark.parametrize("engine_name", ["mariadb"], indirect=True)
on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


async def upgrade(db: Database) -> None:
    await migrations.upgrade(database=db)


async def downgrade(db: Database) -> None:
    await migrations.downgrade("base", database=db)


async def create_tables(db: Database) -> None:
    await db.create_tables()


async def execute(db: Database, *statements: str) -> None:
    async with db.engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


def quoted(db: Database, name: str) -> str:
    return str(db.engine.dialect.identifier_preparer.quote(name))


async def add_user_and_pet(db: Database) -> None:
    async with db.transaction() as session:
        owner = await create_user(session, UserCreate(name="Ada"))
        await create_pet(session, PetCreate(name="Rex", owner_id=owner.id))


# A host's tables.


@pytest.mark.parametrize("rows", [[], ["INSERT INTO visit VALUES (1, 1)"]], ids=["empty", "with a row"])
@pytest.mark.parametrize("name", TABLES)
async def test_a_downgrade_is_refused_while_a_hosts_table_refers_to_ours(
    empty_url: URL, name: str, rows: list[str]
) -> None:
    async with Database(empty_url) as db:
        await upgrade(db)
        await add_user_and_pet(db)
        visit = f"(id INTEGER PRIMARY KEY, ours INTEGER, FOREIGN KEY (ours) REFERENCES {quoted(db, name)} (id))"
        await execute(db, f"CREATE TABLE visit {visit}", *rows)

        with pytest.raises(DatabaseError, match=f'"visit" has a foreign key to "{name}": drop'):
            await downgrade(db)

        assert await ask(db, table_names) == {*TABLES, "visit", VERSION_TABLE}
        assert await migrations.current(database=db) == migrations.head()
        async with db.reading() as session:
            assert (await count_users(session), await count_pets(session)) == (1, 1)
        await execute(db, "DROP TABLE visit")
        await downgrade(db)
        assert await ask(db, table_names) == {VERSION_TABLE}


@on_postgresql
async def test_a_view_that_keeps_a_table_from_being_dropped_is_told(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await upgrade(db)
        await execute(db, "CREATE VIEW rex AS SELECT * FROM pet")

        with pytest.raises(DatabaseError, match="another object, such as a view, depends on the table"):
            await downgrade(db)

        assert await ask(db, table_names) == {*TABLES, VERSION_TABLE}


@on_sqlite
async def test_a_hosts_foreign_key_that_sqlite_can_not_check_is_no_hindrance(empty_url: URL, tmp_path: Path) -> None:
    checkout = copy_migrations(tmp_path / "checkout")
    add_revision(checkout, "op.add_column('pet', sa.Column('nickname', sa.String(20)))")
    alembic(empty_url, "upgrade", str(migrations.head()), ini=checkout)
    async with Database(empty_url) as db:
        await execute(
            db,
            "CREATE TABLE clinic (id INTEGER PRIMARY KEY, code TEXT)",
            "CREATE TABLE visit (id INTEGER PRIMARY KEY, clinic TEXT REFERENCES clinic (code),"
            " pet_id INTEGER REFERENCES pet (id))",
            "CREATE TABLE bill (id INTEGER PRIMARY KEY, clinic TEXT REFERENCES clinic (code))",
        )

    alembic(empty_url, "upgrade", "head", ini=checkout)

    assert await ask_once(empty_url, versions) == ["second"]


@on_sqlite
@pytest.mark.parametrize("kind", ["TABLE {} (id INTEGER PRIMARY KEY)", "VIEW {} AS SELECT 1 AS id"])
@pytest.mark.parametrize("name", ["User", "PET"])
@pytest.mark.parametrize("work", [upgrade, create_tables])
async def test_a_hosts_table_of_the_same_name_in_another_case_is_refused(
    empty_url: URL, work: Work, name: str, kind: str
) -> None:
    async with Database(empty_url) as db:
        await execute(db, "CREATE " + kind.format(name))

        with pytest.raises(DatabaseError, match=f'"{name.lower()}" that is not this package\'s'):
            await work(db)


# Schemas and isolation levels.


@pytest.fixture
def other_schema(empty_url: URL, engine_name: str) -> Iterator[str]:
    """A schema beside the one in which an engine looks."""
    name = f"{empty_url.database}_pets"
    if engine_name == "postgresql":
        asyncio.run(ask_once(empty_url, lambda connection: create_schema(connection, name)))
        yield name
    else:
        on_server(engine_name, f"CREATE DATABASE {name}")
        yield name
        on_server(engine_name, "SET SESSION lock_wait_timeout = 60", f"DROP DATABASE {name}")


def create_schema(connection: sa.Connection, name: str) -> None:
    connection.execute(sa.schema.CreateSchema(name))
    connection.commit()


def tables_of(connection: sa.Connection, schema: str) -> set[str]:
    return set(sa.inspect(connection).get_table_names(schema))


@on_servers
async def test_an_engine_that_translates_schemas_migrates_its_schema(empty_url: URL, other_schema: str) -> None:
    async with Database(empty_url, execution_options={"schema_translate_map": {None: other_schema}}) as db:
        for _ in range(2):
            await upgrade(db)
            assert await migrations.current(database=db) == migrations.head()
            assert await ask(db, lambda connection: tables_of(connection, other_schema)) == {*TABLES, VERSION_TABLE}
            assert await ask(db, table_names) == set()
        name = ".".join(quoted(db, part) for part in (other_schema, "user"))
        await execute(db, f"CREATE TABLE visit (id INTEGER PRIMARY KEY, ours INTEGER REFERENCES {name} (id))")
        with pytest.raises(DatabaseError, match='"visit" has a foreign key'):
            await downgrade(db)
        await execute(db, "DROP TABLE visit")

        await downgrade(db)

        assert await migrations.current(database=db) is None
        assert await ask(db, lambda connection: tables_of(connection, other_schema)) == {VERSION_TABLE}


@on_mariadb
async def test_what_is_half_done_in_a_translated_schema_is_finished(empty_url: URL, other_schema: str) -> None:
    async with Database(empty_url, execution_options={"schema_translate_map": {None: other_schema}}) as db:
        for work, left in ((upgrade, {*TABLES, VERSION_TABLE}), (downgrade, {VERSION_TABLE})):
            await upgrade(db)
            await execute(db, f"DROP TABLE {other_schema}.pet", f"DELETE FROM {other_schema}.{VERSION_TABLE}")

            await work(db)

            assert await ask(db, lambda connection: tables_of(connection, other_schema)) == left


MIGRATE = """
import asyncio, sys
from sqlmodel_alembic_async import Database, migrations

async def main(url, level, work):
    async with Database(url, isolation_level=level) as db:
        await (migrations.upgrade(database=db) if work == "upgrade" else db.create_tables())

asyncio.run(main(*sys.argv[1:]))
"""

LEVELS = [
    ("sqlite", "AUTOCOMMIT"),
    ("postgresql", "REPEATABLE READ"),
    ("postgresql", "SERIALIZABLE"),
    ("postgresql", "AUTOCOMMIT"),
    ("mariadb", "SERIALIZABLE"),
    ("mariadb", "AUTOCOMMIT"),
]


@pytest.mark.parametrize("work", ["upgrade", "create_tables"])
@pytest.mark.parametrize(("engine_name", "level"), LEVELS, indirect=["engine_name"])
def test_processes_migrate_at_once_in_any_isolation_level(empty_url: URL, level: str, work: str) -> None:
    command = [sys.executable, "-c", MIGRATE, empty_url.render_as_string(hide_password=False), level, work]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]

    errors = [process.communicate(timeout=60)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0, 0], errors
    expected = {*TABLES, VERSION_TABLE} if work == "upgrade" else {*TABLES}
    assert asyncio.run(ask_once(empty_url, table_names)) == expected


@on_sqlite
async def test_a_failed_migration_changes_nothing_in_autocommit_either(empty_url: URL) -> None:
    async with Database(empty_url, isolation_level="AUTOCOMMIT") as db:

        def fail(connection: object, cursor: object, statement: str, *rest: object) -> None:
            if statement.strip().startswith("CREATE TABLE pet"):
                raise KeyError

        sa.event.listen(db.engine.sync_engine, "before_cursor_execute", fail)
        with pytest.raises(KeyError):
            await upgrade(db)

        assert await ask(db, table_names) == set()


# Other transactions.


@on_servers
async def test_a_migration_does_not_wait_for_an_idle_transaction_without_end(
    empty_url: URL, engine_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "TABLE_LOCK_TIMEOUT", 1, raising=False)
    async with Database(empty_url) as db, Database(empty_url) as host:
        await upgrade(db)
        async with host.session() as session:
            await count_pets(session)

            task = asyncio.create_task(downgrade(db))
            await asyncio.wait([task], timeout=15)
            ended = task.done()
        await asyncio.wait([task])

        assert ended
        assert isinstance(task.exception(), TransactionConflictError)
        assert "perhaps one that is idle" in str(task.exception())
        assert await ask(db, table_names) == {*TABLES, VERSION_TABLE}
        if engine_name == "mariadb":
            assert await ask(db, lambda connection: connection.scalar(sa.text("SELECT @@lock_wait_timeout"))) > 10
        await downgrade(db)


async def delete_version(db: Database) -> None:
    await execute(db, f"DELETE FROM {VERSION_TABLE}")


@pytest.mark.parametrize("engine_name", ["sqlite", "postgresql"], indirect=True)
async def test_empty_tables_without_a_version_are_not_dropped_where_no_interruption_leaves_any(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await upgrade(db)
        await delete_version(db)

        await downgrade(db)

        assert await ask(db, table_names) == {*TABLES, VERSION_TABLE}


@on_mariadb
async def test_a_row_that_is_committed_while_a_downgrade_looks_is_not_lost(empty_url: URL) -> None:
    async with Database(empty_url) as db, Database(empty_url) as other:
        await upgrade(db)
        await delete_version(db)
        async with other.session() as session:
            await create_user(session, UserCreate(name="Ada"))
            task = asyncio.create_task(downgrade(db))
            done, _ = await asyncio.wait([task], timeout=1)
            assert not done

            await session.commit()
        await asyncio.wait_for(task, 20)

        async with db.reading() as session:
            assert await count_users(session) == 1


@on_sqlite
async def test_foreign_keys_are_on_after_a_migration_that_is_cancelled_as_it_switches_them_on(
    empty_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = Cursor.execute
    mine = asyncio.all_tasks()
    cancelled = []

    async def cancel_at_the_end(self: Cursor, sql: str, parameters: Any = None) -> Cursor:
        if sql == "PRAGMA foreign_keys = ON":
            cancelled.extend(task for task in asyncio.all_tasks() - mine if task.cancel())
        return await execute(self, sql, parameters)

    async with Database(empty_url) as db:
        monkeypatch.setattr(Cursor, "execute", cancel_at_the_end)
        task = asyncio.create_task(upgrade(db))
        await asyncio.wait([task], timeout=20)
        monkeypatch.undo()

        assert cancelled
        assert task.cancelled()
        async with db.session() as session:
            with pytest.raises(UserNotFoundError):
                await create_pet(session, PetCreate(name="Stray", owner_id=999_999))


@contextlib.contextmanager
def writer_at_work(url: URL) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(str(url.database), isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        yield writer


@on_sqlite
async def test_an_upgrade_with_nothing_to_do_waits_for_no_writer_and_checks_nothing(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await upgrade(db)
        sent: list[str] = []
        sa.event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *event: sent.append(event[2]))

        with writer_at_work(empty_url):
            await asyncio.wait_for(upgrade(db), 5)

        assert sent
        assert not [statement for statement in sent if "foreign_key_check" in statement]


@on_sqlite
@pytest.mark.parametrize("work", [upgrade, create_tables])
async def test_a_migration_waits_longer_for_a_writer_than_a_transaction_does(empty_url: URL, work: Work) -> None:
    async with Database(empty_url, connect_args={"timeout": 0.1}) as db:
        await ask(db, table_names)
        with writer_at_work(empty_url):
            task = asyncio.create_task(work(db))
            await asyncio.wait([task], timeout=1)
        await asyncio.wait_for(task, 20)

        assert await ask(db, table_names) >= {*TABLES}


@on_sqlite
async def test_a_migration_gives_up_where_a_writer_does_not_end(
    empty_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "SQLITE_LOCK_TIMEOUT", 0)
    async with Database(empty_url, connect_args={"timeout": 0.1}) as db:
        await ask(db, table_names)
        with writer_at_work(empty_url), pytest.raises(TransactionConflictError):
            await upgrade(db)


@on_sqlite
async def test_a_migration_of_a_file_that_can_only_be_read_does_not_wait(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await ask(db, table_names)
    async with Database(f"sqlite:///file:{empty_url.database}?mode=ro&uri=true") as db:
        with pytest.raises(StorageError):
            await asyncio.wait_for(upgrade(db), 5)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_migration_that_a_closed_event_loop_left_behind_blocks_no_other_one(tmp_path: Path) -> None:
    async def wait_for_writer() -> asyncio.Task[None]:
        task = asyncio.create_task(upgrade(Database(f"sqlite:///{path}")))
        await asyncio.sleep(0.5)
        return task

    path = tmp_path / "left.db"
    sqlite3.connect(path).close()
    loop = asyncio.new_event_loop()
    with writer_at_work(sa.make_url(f"sqlite:///{path}")):
        left = loop.run_until_complete(wait_for_writer())
        assert not left.done()
        loop.close()

    async def upgrade_another() -> str | None:
        async with Database("sqlite://") as db:
            await asyncio.wait_for(upgrade(db), 5)
            return await migrations.current(database=db)

    assert asyncio.run(upgrade_another()) == migrations.head()
    left._log_destroy_pending = False  # type: ignore[attr-defined]  # it is as it should be
    left.get_coro().close()  # type: ignore[union-attr]  # as when it is collected
    assert asyncio.run(upgrade_another()) == migrations.head()


async def test_tables_are_not_created_in_a_transaction_of_the_same_task(empty_url: URL) -> None:
    async with Database(empty_url) as db, db.transaction():
        with pytest.raises(RuntimeError, match="in a transaction of this database already"):
            async with asyncio.timeout(5):
                await db.create_tables()


# What is wrong with a URL, an account, or a revision.


@on_mariadb
@pytest.mark.parametrize("work", [upgrade, downgrade, create_tables, lambda db: migrations.current(database=db)])
async def test_a_url_without_a_database_is_told(empty_url: URL, work: Work) -> None:
    async with Database(empty_url._replace(database=None)) as db:
        with pytest.raises(DatabaseError, match="the database URL names no database"):
            await work(db)


@on_mariadb
async def test_a_password_that_can_not_be_sent_is_told_and_not_shown(empty_url: URL) -> None:
    async with Database(empty_url.set(password="sesame\u20ac")) as db:
        for work in (upgrade, create_tables, lambda db: migrations.current(database=db), add_user_and_pet):
            error: BaseException | None = None
            try:
                await work(db)
            except ValueError as caught:
                error = caught

            assert error is not None
            assert "the password of the database URL has a character" in str(error)
            while error is not None:
                assert "sesame" not in repr((error, error.__dict__))
                error = error.__cause__ or error.__context__


@pytest.fixture
def reader_url(engine_name: str, tmp_path: Path) -> Iterator[URL]:
    """A database on whose tables this account has no more than the right to read."""
    user = f"test_{secrets.token_hex(6)}"
    with new_database(engine_name, tmp_path) as url:
        if engine_name == "postgresql":
            on_server(engine_name, f"CREATE ROLE {user} LOGIN")
            asyncio.run(ask_once(url, revoke))
        else:
            on_server(engine_name, f"CREATE USER {user}@'%'", f"GRANT SELECT ON {url.database}.* TO {user}@'%'")
        yield url.set(username=user)
    on_server(engine_name, f"DROP ROLE {user}" if engine_name == "postgresql" else f"DROP USER {user}@'%'")


def revoke(connection: sa.Connection) -> None:
    connection.exec_driver_sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    connection.commit()


@on_servers
@pytest.mark.parametrize("work", [upgrade, create_tables])
async def test_the_lack_of_a_right_is_told(reader_url: URL, work: Work) -> None:
    async with Database(reader_url) as db:
        with pytest.raises(DatabaseError, match="lacks a right"):
            await work(db)


@on_mariadb
async def test_a_session_that_shows_tables_without_quotes_finds_ours(empty_url: URL) -> None:
    async with Database(empty_url, connect_args={"init_command": "SET sql_quote_show_create = 0"}) as db:
        await create_tables(db)
        await create_tables(db)
        await upgrade(db)
        await downgrade(db)

        assert await ask(db, table_names) == {VERSION_TABLE}


@pytest.mark.parametrize("operation", [migrations.upgrade, migrations.downgrade])
@pytest.mark.parametrize("start", [upgrade, downgrade])
async def test_a_revision_that_alembic_can_not_read_is_refused(empty_url: URL, start: Work, operation: Any) -> None:
    async with Database(empty_url) as db:
        await upgrade(db)
        await start(db)
        before = await migrations.current(database=db)

        for revision in ("head-7", "head+1", f"{migrations.head()}+1", "@", "a:b:c", "%", "é"):
            with pytest.raises(ValueError, match="can not migrate to "):
                await operation(revision, database=db)

        assert await migrations.current(database=db) == before
        with contextlib.suppress(ValueError):  # Sensible or not, by Alembic's rules.
            await operation("head-1", database=db)


BAD_VERSIONS = {
    "empty": "('')",
    "abbreviated": "('{head:.4}')",
    "symbolic": "('head')",
    "twice": "('{head}'), ('{head}')",
    "null": "(NULL)",
}


@pytest.mark.parametrize("rows", BAD_VERSIONS.values(), ids=BAD_VERSIONS)
async def test_a_stored_version_that_is_none_is_told(empty_url: URL, rows: str) -> None:
    async with Database(empty_url) as db:
        await execute(
            db,
            f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32))",
            f"INSERT INTO {VERSION_TABLE} VALUES {rows.format(head=migrations.head())}",
        )

        for work in (upgrade, downgrade, lambda db: migrations.current(database=db)):
            with pytest.raises(DatabaseError, match=f"table {VERSION_TABLE} holds"):
                await work(db)

        assert await ask(db, table_names) == {VERSION_TABLE}


async def test_a_version_table_of_numbers_is_told(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await execute(
            db,
            f"CREATE TABLE {VERSION_TABLE} (version_num INTEGER)",
            f"INSERT INTO {VERSION_TABLE} VALUES (3)",
        )

        for work in (upgrade, downgrade, lambda db: migrations.current(database=db)):
            with pytest.raises(DatabaseError, match=f"table {VERSION_TABLE} holds"):
                await work(db)
