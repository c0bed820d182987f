"""The connections of one event loop: which of them are kept, and which are closed and when."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL
from sqlalchemy.util import greenlet_spawn

from sqlmodel_alembic_async import Database, StorageError, count_pets

from ..stress.measures import becomes_true
from .connections import driver, is_open, pool

on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


async def test_a_connection_that_a_cancelled_task_was_handed_by_a_disposed_pool_is_closed(db: Database) -> None:
    async with Database(db.url, pool_size=1, max_overflow=0, pool_timeout=20) as small:
        kept = [await driver(small)]
        share = pool(small)._share()
        record = share.take_idle()[0]
        waiting = asyncio.create_task(small.engine.connect().start())
        assert await becomes_true(lambda: len(share.idle._waiting) == 1)
        share.idle.put(record)
        share.is_retired = True
        waiting.cancel()
        await asyncio.wait([waiting])

        assert waiting.cancelled()
        assert await becomes_true(lambda: not any(map(is_open, kept)))


async def test_a_pool_that_is_disposed_keeps_no_connection(db: Database) -> None:
    disposed = pool(db)
    await db.dispose()

    disposed._shares.pop(asyncio.get_running_loop(), None)
    connection = await greenlet_spawn(disposed.connect)
    await greenlet_spawn(connection.close)

    assert disposed.checkedin() == 0


@pytest.mark.filterwarnings("ignore:asynchronous generator:ResourceWarning")  # Of a loop that goes on, as this one.
async def test_connections_are_made_anew_after_the_asynchronous_generators_of_a_loop_were_closed(db: Database) -> None:
    async with Database(db.url, pool_size=1, max_overflow=0, pool_timeout=5) as small:
        for _ in range(3):
            await driver(small)
            await asyncio.get_running_loop().shutdown_asyncgens()
        async with small.session() as session:
            await count_pets(session)


async def counted(db: Database) -> int:
    async with db, db.reading() as session:
        return await count_pets(session)


@on_servers
def test_a_connection_that_is_lent_ends_with_its_event_loop(migrated_url: URL) -> None:
    db = Database(migrated_url)
    kept: list[Any] = []

    async def keep() -> Any:
        kept.append(await db.engine.connect())
        return (await kept[0].get_raw_connection()).driver_connection

    connection = asyncio.run(keep())

    assert not is_open(connection)
    assert asyncio.run(counted(db)) >= 0


async def test_who_waits_for_room_in_a_pool_gets_it_where_another_one_fails(tmp_path: Path) -> None:
    async def fail(db: Database) -> None:
        async with db.transaction() as session:
            await count_pets(session)

    async with Database(f"sqlite:///{tmp_path}/missing/x.db", pool_timeout=30) as db, asyncio.timeout(10):
        failures = await asyncio.gather(*(fail(db) for _ in range(4)), return_exceptions=True)

    assert [type(failure) for failure in failures] == [StorageError] * 4


async def test_a_connection_above_the_size_of_the_pool_is_closed_when_it_is_given_back(migrated_url: URL) -> None:
    async with Database(migrated_url, pool_size=1, max_overflow=1, pool_timeout=5) as db:
        for _ in range(2):  # The room of the closed one is there again.
            first, second = await db.engine.connect(), await db.engine.connect()
            kept, closed = [(await each.get_raw_connection()).driver_connection for each in (first, second)]
            await first.close()
            await second.close()

            assert await becomes_true(lambda driver=closed: not is_open(driver))
            assert is_open(kept)
            assert (pool(db).checkedin(), pool(db).overflow()) == (1, 0)
