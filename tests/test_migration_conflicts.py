"""Migrations beside a host's tables, in other schemas, and with unusual settings of an engine or a server."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    Database,
    DatabaseError,
    PetCreate,
    UserCreate,
    UserNotFoundError,
    count_pets,
    count_users,
    create_pet,
    create_user,
    migrations,
)
from sqlmodel_alembic_async.engines.sqlite.cursor import Cursor
from sqlmodel_alembic_async.models import TABLES

from .migrating import (
    VERSION_TABLE,
    Work,
    add_revision,
    alembic,
    ask,
    ask_once,
    copy_migrations,
    create_tables,
    downgrade,
    execute,
    on_mariadb,
    on_postgresql,
    on_servers,
    on_sqlite,
    quoted,
    table_names,
    upgrade,
    versions,
)
from .servers import new_database, on_server


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
async def test_a_hosts_foreign_key_that_sqlite_cannot_check_is_no_hindrance(empty_url: URL, tmp_path: Path) -> None:
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

        with pytest.raises(DatabaseError, match=f'table "{name.lower()}" already exists'):
            await work(db)


# Schemas.


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


# Cancellation, and transactions of the same task.


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


async def test_tables_are_not_created_in_a_transaction_of_the_same_task(empty_url: URL) -> None:
    async with Database(empty_url) as db, db.transaction():
        with pytest.raises(RuntimeError, match="already has an open transaction of this database"):
            async with asyncio.timeout(5):
                await db.create_tables()


# What is wrong with a URL, an account, or a revision.


@on_mariadb
async def test_a_password_that_cannot_be_sent_is_told_and_not_shown(empty_url: URL) -> None:
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
