"""Pools: from one event loop to the next, lanes, and the engines that have none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from sqlmodel_alembic_async import Database, Pet, PetCreate, StorageError, count_pets, create_pet, engines, list_pets
from sqlmodel_alembic_async.engines.loop_pool import LoopPool
from sqlmodel_alembic_async.engines.pools import ReadWritePool, SQLitePool
from sqlmodel_alembic_async.engines.sqlite.connection import Connection

from ..stress.measures import becomes_true, checked_out

on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


# Event loops.


def test_a_connection_that_an_earlier_event_loop_lent_is_closed_when_it_is_returned(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/x.db", pool_size=1, max_overflow=0)

    async def keep() -> Any:
        connection = await db.engine.connect()
        return connection, (await connection.get_raw_connection()).driver_connection

    async def go_on(kept: Any, driver: Connection) -> tuple[int, int, bool]:
        async with db.engine.connect() as connection:  # The one that was lent is not counted any more.
            await connection.exec_driver_sql("SELECT 1")
            await kept.close()
            lent = checked_out(db)
        ended = await becomes_true(lambda: not driver._thread.is_alive())
        pool: Any = db.engine.pool
        idle = pool.checkedin()
        await db.dispose()
        return lent, idle, ended

    assert asyncio.run(go_on(*asyncio.run(keep()))) == (1, 1, True)


@on_sqlite
def test_an_idle_connection_to_a_file_serves_the_next_event_loop(migrated_url: URL) -> None:
    db = Database(migrated_url)

    async def used() -> object:
        async with db.engine.connect() as connection:
            return (await connection.get_raw_connection()).driver_connection

    first = asyncio.run(used())

    assert asyncio.run(used()) is first
    asyncio.run(db.dispose())


@on_servers
def test_a_connection_to_a_server_ends_with_its_event_loop(migrated_url: URL) -> None:
    db = Database(migrated_url)

    async def used() -> object:
        async with db.engine.connect() as connection:
            return (await connection.get_raw_connection()).driver_connection

    first = asyncio.run(used())

    assert asyncio.run(used()) is not first
    asyncio.run(db.dispose())


# Lanes.


async def test_every_lane_has_connections_of_its_own(db: Database) -> None:
    pool = db.engine.pool

    assert isinstance(pool, ReadWritePool)
    async with db.session() as plain, db.transaction(), db.reading() as reader:
        await count_pets(plain)
        await count_pets(reader)
        pools = (pool, pool.reader, *([pool.writer] if isinstance(pool, SQLitePool) else []))
        lent = [each.checkedout() for each in pools]
    assert lent == ([1, 1, 1] if isinstance(pool, SQLitePool) else [2, 1])
    assert checked_out(db) == 0


# Sizes.


async def test_a_task_waits_for_a_connection_before_it_opens_one_more(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool: Any = db.engine.pool
    monkeypatch.setattr(type(pool.reader), "patience", 60)
    opened: list[Any] = []
    event.listen(db.engine.sync_engine, "connect", lambda connection, record: opened.append(connection))

    async def read() -> int:
        async with db.reading() as session:
            return await count_pets(session)

    async with asyncio.timeout(30):
        assert await asyncio.gather(*(read() for _ in range(20))) == [0] * 20

    assert len(opened) == pool.reader.size()


async def test_who_asks_first_gets_a_connection_first(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoopPool, "patience", 0.5)
    order: list[str] = []

    async with Database(db.url, pool_size=1, max_overflow=1) as small:

        async def use(name: str, start: float) -> None:
            await asyncio.sleep(start)
            async with small.engine.connect():
                order.append(name)
                await asyncio.sleep(0.2 if order[0] != name else 2)

        async with small.engine.connect():
            # The first one opens a connection after its patience. The second one then loses its own, but not its turn.
            waiting = asyncio.gather(use("first", 0), use("second", 0.1), use("third", 0.3))
            await asyncio.sleep(0.7)
        await waiting

    assert order == ["first", "second", "third"]


async def test_a_task_waits_no_longer_than_the_time_out_of_the_pool(db: Database) -> None:
    small = Database(db.url, pool_size=1, max_overflow=1, pool_timeout=0.5)
    async with small, small.engine.connect(), AsyncExitStack() as opened:
        ways = [opened.enter_async_context(small.engine.connect()) for _ in range(2)]
        results = await asyncio.gather(*ways, return_exceptions=True)

    assert [isinstance(result, PoolTimeoutError) for result in results] == [False, True]


async def test_short_reads_do_not_wait_for_the_end_of_slow_ones(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    pool: Any = db.engine.pool
    monkeypatch.setattr(type(pool.reader), "patience", 0.01)

    async with asyncio.timeout(30), AsyncExitStack() as slow:
        for _ in range(pool.reader.size() + pool.reader._max_overflow):
            await count_pets(await slow.enter_async_context(db.reading()))
        assert pool.reader.checkedout() == 15

    assert pool.reader.checkedin() == pool.reader.size() < 15


@on_sqlite
async def test_a_disposed_pool_still_has_few_readers(db: Database) -> None:
    before: Any = db.engine.pool
    await db.dispose()
    after: Any = db.engine.pool

    assert after is not before
    assert (after.reader.size(), after.reader.patience) == (3, 0.25)


@pytest.mark.parametrize("sizes", [{"pool_size": 2}, {"max_overflow": 1}, {"pool_size": 1, "max_overflow": 2}])
async def test_the_sizes_that_an_application_gives_apply_to_readers_and_to_plain_sessions(
    db: Database, sizes: dict[str, int]
) -> None:
    async with Database(db.url, **sizes) as sized:
        pool: Any = sized.engine.pool
        expected = sizes.get("pool_size", 5), sizes.get("max_overflow", 10)

        for each in (pool, pool.reader):
            assert (each.size(), each._max_overflow, each.patience) == (*expected, 0.05)


# Engines with a pool class of their own.


@pytest.fixture
async def plain_db(db: Database) -> AsyncIterator[Database]:
    async with Database(db.url, poolclass=NullPool) as plain:
        yield plain


async def test_a_pool_of_ones_own_serves_transactions_and_readers(plain_db: Database) -> None:
    async with plain_db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))

    async with plain_db.reading() as session:
        assert await count_pets(session) == 1
    async with plain_db.reading(snapshot=True) as session:
        assert [pet.name for pet in (await list_pets(session)).items] == ["Rex"]


@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_pool_of_ones_own_has_readers_that_can_not_write(plain_db: Database, snapshot: bool) -> None:
    with pytest.raises(StorageError):
        async with plain_db.reading(snapshot=snapshot) as session:
            await session.exec(text("DELETE FROM pet"))
    with pytest.raises(StorageError, match="session is read-only"):
        async with plain_db.reading(snapshot=snapshot) as session:
            session.add(Pet(name="Lost"))

    async with plain_db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))


@pytest.mark.parametrize("snapshot", [False, True])
async def test_readers_with_a_pool_of_ones_own_see_one_moment(db: Database, plain_db: Database, snapshot: bool) -> None:
    async with plain_db.reading(snapshot=snapshot) as reader:
        before = await count_pets(reader)
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Rex"))

        assert await count_pets(reader) == before == 0


# A host application's own engine.


@pytest.fixture
async def hosts_engine(db: Database) -> AsyncIterator[AsyncEngine]:
    engine = engines.prepare(create_async_engine(db.url))
    yield engine
    await engine.dispose()


async def test_a_hosts_engine_is_prepared_for_every_kind_of_work(hosts_engine: AsyncEngine) -> None:
    async with engines.writer(hosts_engine).begin() as connection:
        await connection.exec_driver_sql("DELETE FROM pet")
    for reading in (engines.reader, engines.snapshot):
        async with reading(hosts_engine).connect() as connection:
            assert (await connection.exec_driver_sql("SELECT count(*) FROM pet")).scalar_one() == 0
            with pytest.raises(DBAPIError):
                await connection.exec_driver_sql("DELETE FROM pet")
    async with hosts_engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM pet")


async def test_a_hosts_engine_refuses_a_second_task(hosts_engine: AsyncEngine) -> None:
    async with hosts_engine.connect() as connection:
        works = [asyncio.create_task(connection.exec_driver_sql("SELECT 1")) for _ in range(2)]
        outcomes = await asyncio.gather(*works, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [InvalidRequestError]


@on_sqlite
async def test_a_hosts_engine_of_sqlite_has_our_connection_and_its_settings(db: Database) -> None:
    engine = engines.prepare(create_async_engine(db.url), synchronous="NORMAL")
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        values = [
            (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("foreign_keys", "journal_mode", "synchronous")
        ]
    await engine.dispose()

    assert isinstance(driver, Connection)
    assert values == [1, "wal", 1]


@on_servers
async def test_a_setting_that_a_server_does_not_have_is_refused(db: Database) -> None:
    with pytest.raises(TypeError, match="has no setting synchronous"):
        engines.prepare(create_async_engine(db.url), synchronous="FULL")


@on_sqlite
async def test_a_files_writers_take_turns_at_a_single_connection(db: Database) -> None:
    assert isinstance(db.engine.pool, SQLitePool)
    pool = db.engine.pool.writer
    ended: list[int] = []

    async def write(number: int) -> None:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name=f"Pet {number}"))
            assert (pool.checkedout(), pool.overflow()) == (1, 0)
        ended.append(number)

    async with db.transaction():
        writers = [asyncio.create_task(write(number)) for number in range(5)]
        assert not await becomes_true(lambda: pool.checkedout() > 1, within=0.2)
    await asyncio.gather(*writers)

    assert ended == [0, 1, 2, 3, 4]
