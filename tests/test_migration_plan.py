"""What a command does where there is nothing to do, after an interrupted migration, and with a wrong version."""

import asyncio
import contextlib
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    Database,
    DatabaseError,
    UserCreate,
    count_pets,
    count_users,
    create_user,
    migrations,
)
from sqlmodel_alembic_async.models import TABLES

from .migrating import (
    VERSION_TABLE,
    Work,
    alembic,
    ask,
    downgrade,
    execute,
    half_created,
    half_dropped,
    on_mariadb,
    on_sqlite,
    outcome,
    start,
    table_names,
    upgrade,
    versions,
    writer_at_work,
)


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


async def test_one_step_back_finishes_an_interrupted_downgrade(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await half_dropped(db)

        await migrations.downgrade("-1", database=db)

        assert await ask(db, table_names) == {VERSION_TABLE}
        assert await migrations.current(database=db) is None


async def test_a_downgrade_to_where_the_tables_never_were_is_refused(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await half_created(db)

        with pytest.raises(ValueError, match="not a valid downgrade target"):
            await migrations.downgrade(str(migrations.head()), database=db)

        assert await migrations.current(database=db) is None
        await upgrade(db)
        assert await ask(db, table_names) == {*TABLES, VERSION_TABLE}


async def test_commands_that_only_look_correct_nothing(empty_url: URL) -> None:
    head = str(migrations.head())
    async with Database(empty_url) as db:
        for leave, current in [(half_dropped, f"{head} (head)"), (half_created, "")]:
            await leave(db)
            tables = await ask(db, table_names)

            assert alembic(empty_url, "current").strip() == current
            code, _, _ = outcome(start(empty_url, "check"))

            assert code != 0
            assert await ask(db, table_names) == tables
            assert await migrations.current(database=db) == (head if current else None)


async def test_a_database_of_a_newer_version_stays_as_it_is_whatever_tables_it_has(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await half_dropped(db)
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = 'newer'")

        for work in (upgrade, downgrade):
            with pytest.raises(DatabaseError, match="revision newer"):
                await work(db)

        assert await ask(db, versions) == ["newer"]
        assert await ask(db, table_names) == {"user", VERSION_TABLE}


async def test_an_upgrade_after_an_interrupted_downgrade_keeps_the_rows_that_are_left(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await half_dropped(db)
        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Ada"))

        await upgrade(db)

        async with db.reading() as session:
            assert (await count_users(session), await count_pets(session)) == (1, 0)


async def test_rows_in_tables_without_a_version_are_not_taken_back(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        await upgrade(db)
        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Ada"))
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql(f"DELETE FROM {VERSION_TABLE}")

        await downgrade(db)

        async with db.reading() as session:
            assert await count_users(session) == 1


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


@pytest.mark.parametrize("operation", [migrations.upgrade, migrations.downgrade])
@pytest.mark.parametrize("start", [upgrade, downgrade])
async def test_a_revision_that_alembic_cannot_read_is_refused(empty_url: URL, start: Work, operation: Any) -> None:
    async with Database(empty_url) as db:
        await upgrade(db)
        await start(db)
        before = await migrations.current(database=db)

        for revision in ("head-7", "head+1", f"{migrations.head()}+1", "@", "a:b:c", "%", "é"):
            with pytest.raises(ValueError, match="cannot migrate to "):
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
            with pytest.raises(DatabaseError, match=f"table {VERSION_TABLE} contains a value"):
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
            with pytest.raises(DatabaseError, match=f"table {VERSION_TABLE} contains a value"):
                await work(db)
