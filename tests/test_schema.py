"""Tables made and removed: what an interruption left half done is finished, and what a host made is left alone."""

import asyncio
import signal
import sys
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlmodel import SQLModel

from sqlmodel_alembic_async import (
    Database,
    DatabaseError,
    PetCreate,
    UserCreate,
    count_pets,
    count_users,
    create_pet,
    create_user,
    list_pets,
    migrations,
)
from sqlmodel_alembic_async.models import TABLES

from .migrating import (
    CHANGES,
    VERSION_TABLE,
    Work,
    alembic,
    ask,
    ask_once,
    create_tables,
    definitions,
    downgrade,
    half_created,
    half_dropped,
    quoted,
    table_names,
    upgrade,
    versions,
)


class LostError(Exception):
    """Stands for the end of the process: SQLite has no connection to lose."""


class Interruption:
    """Ends the connection before its statement number `at` of those that change something."""

    def __init__(self, db: Database, at: int) -> None:
        self._left = at
        sa.event.listen(db.engine.sync_engine, "before_cursor_execute", self._count)

    @property
    def happened(self) -> bool:
        return self._left <= 0

    def _count(self, connection: sa.Connection, cursor: object, statement: str, *rest: object) -> None:
        if statement.split()[0] in CHANGES:
            self._left -= 1
            if self._left == 0:
                _lose(connection.connection.driver_connection)


def _lose(driver: Any) -> None:
    if not hasattr(driver, "_transport"):
        raise LostError
    driver._transport.abort()


async def interrupted(url: URL, work: Work, at: int) -> bool:
    """Interrupt the work at a statement; tell whether it has so many of them."""
    async with Database(url) as db:
        interruption = Interruption(db, at)
        connections: list[object] = []
        sa.event.listen(db.engine.sync_engine, "connect", lambda connection, record: connections.append(connection))
        with suppress(DatabaseError, LostError):
            await work(db)
            assert not interruption.happened
        assert len(connections) == 1  # There is nothing to do on another one.
        return interruption.happened


async def begin_at(url: URL, work: Work) -> None:
    """Bring the tables to where the work begins."""
    async with Database(url) as db:
        await (upgrade if work is downgrade else downgrade)(db)


def schema(connection: sa.Connection) -> Any:
    """Return the definitions of our tables, as the database words them."""
    if connection.dialect.name == "postgresql":
        return definitions(connection)
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql("SELECT tbl_name, name, sql FROM sqlite_master ORDER BY 1, 2")
        return [tuple(row) for row in rows if row[0] in TABLES]
    return [connection.exec_driver_sql(f"SHOW CREATE TABLE {table}").one()[1] for table in TABLES]


async def whole_schema(url: URL) -> Any:
    async with Database(url) as db:
        await upgrade(db)
        whole = await ask(db, schema)
        await downgrade(db)
    return whole


@pytest.mark.parametrize("work", [upgrade, downgrade])
async def test_an_upgrade_finishes_an_interrupted_migration(empty_url: URL, work: Work) -> None:
    whole = await whole_schema(empty_url)

    for at in count(1):
        await begin_at(empty_url, work)
        was_interrupted = await interrupted(empty_url, work, at)

        async with Database(empty_url) as db:
            await upgrade(db)

            assert await ask(db, schema) == whole, f"interrupted at statement {at}"
            assert await ask(db, versions) == [migrations.head()]
        if not was_interrupted:
            break

    assert at > 3


@pytest.mark.parametrize("work", [upgrade, downgrade])
async def test_a_downgrade_finishes_an_interrupted_migration(empty_url: URL, work: Work) -> None:
    for at in count(1):
        await begin_at(empty_url, work)
        was_interrupted = await interrupted(empty_url, work, at)

        async with Database(empty_url) as db:
            await downgrade(db)

            assert await ask(db, table_names) == {VERSION_TABLE}, f"interrupted at statement {at}"
            assert await ask(db, versions) == []
        if not was_interrupted:
            break

    assert at > 3


async def test_an_interrupted_creation_of_tables_is_finished(empty_url: URL) -> None:
    whole = await tables_at_once(empty_url)

    for at in count(1):
        await begin_at(empty_url, create_tables)
        was_interrupted = await interrupted(empty_url, create_tables, at)

        async with Database(empty_url) as db:
            await create_tables(db)

            assert await ask(db, definitions) == whole, f"interrupted at statement {at}"
            await remove_tables(db)
        if not was_interrupted:
            break

    assert at > 3


async def tables_at_once(url: URL) -> Any:
    async with Database(url) as db:
        await create_tables(db)
        whole = await ask(db, definitions)
        await remove_tables(db)
    return whole


async def remove_tables(db: Database) -> None:
    async with db.engine.begin() as connection:
        for table in reversed(TABLES):
            await connection.exec_driver_sql(f"DROP TABLE {quoted(db, table)}")


DIES = """
import asyncio, os, signal, sys
import sqlalchemy as sa
from sqlmodel_alembic_async import Database, migrations

async def main(url, work, at):
    db = Database(url)

    @sa.event.listens_for(db.engine.sync_engine, "after_cursor_execute")
    def die(connection, cursor, statement, *rest):
        if statement.strip().startswith(at):
            os.kill(os.getpid(), signal.SIGKILL)

    await (migrations.upgrade(database=db) if work == "upgrade" else migrations.downgrade("base", database=db))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("work", "at"), [("upgrade", "CREATE TABLE pet"), ("downgrade", "DROP TABLE pet")])
async def test_a_plain_upgrade_finishes_what_a_killed_process_began(empty_url: URL, work: str, at: str) -> None:
    whole = await whole_schema(empty_url)
    await begin_at(empty_url, downgrade if work == "downgrade" else upgrade)
    url = empty_url.render_as_string(hide_password=False)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", DIES, url, work, at)
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL

    alembic(empty_url, "upgrade", "head")

    assert await ask_once(empty_url, schema) == whole
    assert await ask_once(empty_url, versions) == [migrations.head()]


async def test_tables_that_create_tables_made_become_migrated_ones(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await create_tables(db)
        whole = await ask(db, definitions)
        await downgrade(db)  # There is nothing to take back.
        async with db.transaction() as session:
            owner = await create_user(session, UserCreate(name="Ada"))
            await create_pet(session, PetCreate(name="Rex", owner_id=owner.id))

        await upgrade(db)

        assert await ask(db, definitions) == whole
        assert await ask(db, versions) == [migrations.head()]
        async with db.reading() as session:
            assert (await count_users(session), await count_pets(session)) == (1, 1)


FOREIGN = {
    "empty table": "CREATE TABLE {} (id INTEGER PRIMARY KEY, name VARCHAR(100) NOT NULL)",
    "table": "CREATE TABLE {} AS SELECT 1 AS id, 'Ada' AS name",
    "view": "CREATE VIEW {} AS SELECT 1 AS id, 'Ada' AS name",
}


async def make_foreign(db: Database, name: str, kind: str) -> Any:
    async with db.engine.begin() as connection:
        await connection.exec_driver_sql(FOREIGN[kind].format(quoted(db, name)))


async def rows_of(db: Database, name: str) -> list[tuple[Any, ...]]:
    async with db.engine.connect() as connection:
        return [tuple(row) for row in await connection.exec_driver_sql(f"SELECT * FROM {quoted(db, name)}")]


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("work", [upgrade, create_tables])
async def test_a_hosts_table_of_the_same_name_is_refused_and_left_alone(
    empty_url: URL, name: str, kind: str, work: Work
) -> None:
    async with Database(empty_url) as db:
        await make_foreign(db, name, kind)

        with pytest.raises(DatabaseError, match=f'table "{name}" already exists'):
            await work(db)
        await downgrade(db)

        assert await rows_of(db, name) == ([] if kind == "empty table" else [(1, "Ada")])
        assert await ask(db, table_names) - {VERSION_TABLE, name} == set()


@pytest.mark.parametrize("work", [upgrade, downgrade])
async def test_a_hosts_table_in_the_place_of_a_dropped_one_is_refused_and_left_alone(
    empty_url: URL, work: Work
) -> None:
    async with Database(empty_url) as db:
        await half_dropped(db)
        await make_foreign(db, "pet", "table")
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql(f"DROP TABLE {quoted(db, 'user')}")

        with pytest.raises(DatabaseError, match='table "pet" already exists'):
            await work(db)

        assert await rows_of(db, "pet") == [(1, "Ada")]
        assert await ask(db, versions) == [migrations.head()]
        assert await ask(db, table_names) == {VERSION_TABLE, "pet"}


OF_OTHER_VERSIONS = {
    "without a column": ["ALTER TABLE {} DROP COLUMN city"],
    "without constraints": [
        "CREATE TABLE other AS SELECT * FROM {}",
        "DROP TABLE {}",
        "ALTER TABLE other RENAME TO {}",
    ],
}


@pytest.mark.parametrize("changes", OF_OTHER_VERSIONS.values(), ids=OF_OTHER_VERSIONS)
async def test_a_table_that_lacks_a_column_or_a_constraint_is_not_taken_for_whole(
    empty_url: URL, changes: list[str]
) -> None:
    async with Database(empty_url) as db:
        await half_created(db)
        async with db.engine.begin() as connection:
            for change in changes:
                await connection.exec_driver_sql(change.format(quoted(db, "user")))
        before = await ask(db, table_names)

        for work in (upgrade, create_tables):
            with pytest.raises(DatabaseError, match='table "user" already exists'):
                await work(db)

        assert await ask(db, table_names) == before


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_a_table_of_the_same_name_elsewhere_in_the_search_path_is_not_in_the_way(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await make_foreign(db, "user", "table")
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql("CREATE SCHEMA pets")
    settings = {"server_settings": {"search_path": "pets,public"}}

    async with Database(empty_url, connect_args=settings) as db:
        await upgrade(db)

        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Grace"))
            assert await count_users(session) == 1
        await downgrade(db)
    async with Database(empty_url) as db:
        assert await rows_of(db, "user") == [(1, "Ada")]


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_tables_further_down_in_the_search_path_stay_in_use(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await upgrade(db)
        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Ada"))
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql("CREATE SCHEMA later")
    settings = {"server_settings": {"search_path": "later,public"}}

    async with Database(empty_url, connect_args=settings) as db:
        await upgrade(db)
        await create_tables(db)

        async with db.reading() as session:
            assert await count_users(session) == 1
        await downgrade(db)
    assert await ask_once(empty_url, table_names) == {VERSION_TABLE}


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_tables_are_created_in_the_schema_that_the_engine_translates_to(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await make_foreign(db, "user", "table")
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql("CREATE SCHEMA pets")

    async with Database(empty_url, execution_options={"schema_translate_map": {None: "pets"}}) as db:
        await create_tables(db)
        await create_tables(db)

        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Grace"))
            assert await count_users(session) == 1


async def names(db: Database) -> list[str]:
    async with db.reading() as session:
        return [pet.name for pet in (await list_pets(session)).items]


async def test_create_tables_makes_only_what_is_missing_and_ours(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await db.create_tables()
        await db.create_tables()
        async with db.transaction() as session:
            owner = await create_user(session, UserCreate(name="Ada"))
            await create_pet(session, PetCreate(name="Rex", owner_id=owner.id))

        assert await names(db) == ["Rex"]


async def test_tables_can_be_created_by_many_at_once(empty_url: URL) -> None:
    async def create() -> None:
        async with Database(empty_url) as db:
            await db.create_tables()

    results = await asyncio.gather(*(create() for _ in range(8)), return_exceptions=True)

    assert results == [None] * 8
    tables = [SQLModel.metadata.tables[name] for name in TABLES]
    assert await ask_once(empty_url, index_names) >= {index.name for table in tables for index in table.indexes}


def index_names(connection: sa.Connection) -> set[str | None]:
    inspector = sa.inspect(connection)
    return {index["name"] for table in TABLES for index in inspector.get_indexes(table)}


async def test_a_downgrade_leaves_tables_that_were_never_migrated(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await db.create_tables()
        await migrations.downgrade("base", database=db)

        assert await ask(db, table_names) >= {*TABLES}
