"""Pools in several event loops: at once, and one after the other."""

import asyncio
import threading
from collections.abc import Awaitable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, DatabaseUnavailableError
from sqlmodel_alembic_async.engines import loop_pool

from ..stress import loops
from ..stress.measures import becomes_true
from .connections import driver, is_open, pool

on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)


class Loop:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, work: Awaitable[Any]) -> Any:
        async def result() -> Any:
            return await work

        answer: Future[Any] = asyncio.run_coroutine_threadsafe(result(), self.loop)
        return answer.result(20)

    def close(self) -> None:
        if not self.loop.is_closed():
            self.run(self.loop.shutdown_asyncgens())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()


@pytest.fixture
def two_loops() -> Iterator[tuple[Loop, Loop]]:
    pair = Loop(), Loop()
    yield pair
    for loop in pair:
        loop.close()


# Several event loops at once.


def test_threads_with_an_event_loop_each_share_a_database_from_its_first_connection_on(migrated_url: URL) -> None:
    report = loops.share(migrated_url)

    assert report.broken == []
    assert report.counts["done"] > 0


def test_event_loops_that_take_turns_keep_their_connections(migrated_url: URL, two_loops: tuple[Loop, Loop]) -> None:
    db = Database(migrated_url)

    one, other, *again = [loop.run(driver(db)) for loop in two_loops * 2]

    assert one is not other
    assert again == [one, other]
    for loop in two_loops:
        loop.run(db.dispose())


def test_each_event_loop_may_have_as_many_connections_as_the_pool(
    migrated_url: URL, two_loops: tuple[Loop, Loop]
) -> None:
    db = Database(migrated_url, pool_size=1, max_overflow=0, pool_timeout=1)
    kept = [loop.run(db.engine.connect().start()) for loop in two_loops]

    for loop, connection in zip(two_loops, kept, strict=True):
        loop.run(connection.close())
        loop.run(db.dispose())


def test_disposing_closes_what_is_idle_in_every_event_loop(migrated_url: URL, two_loops: tuple[Loop, Loop]) -> None:
    db = Database(migrated_url)
    connections = [loop.run(driver(db)) for loop in two_loops]

    two_loops[0].run(db.dispose())

    assert asyncio.run(becomes_true(lambda: not any(map(is_open, connections))))


@on_sqlite
def test_a_connection_that_is_closed_in_another_event_loop_goes_back_to_its_own(
    migrated_url: URL, two_loops: tuple[Loop, Loop]
) -> None:
    db = Database(migrated_url, pool_size=1, max_overflow=0, pool_timeout=5)
    home, foreign = two_loops

    async def lend() -> Any:
        return await db.engine.connect()

    async def count() -> int:
        return int(pool(db).checkedin())

    connection = home.run(lend())
    foreign.run(connection.close())

    assert home.run(driver(db)) is not None  # The only place of the pool is free.
    assert (home.run(count()), foreign.run(count())) == (1, 0)
    home.run(db.dispose())


def test_a_loop_waits_while_another_one_makes_the_first_connection(migrated_url: URL) -> None:
    db = Database(migrated_url)

    async def connect_while_locked() -> bool:
        connect: Any = db.engine.sync_engine.pool.dispatch.connect
        lock = connect._exec_once_mutex._lock
        lock.acquire()
        connecting = asyncio.ensure_future(driver(db))
        done, _ = await asyncio.wait([connecting], timeout=0.2)
        lock.release()
        await connecting
        await db.dispose()
        return bool(done)

    assert not asyncio.run(connect_while_locked())


async def test_what_waits_for_a_connection_gets_one_from_a_pool_that_is_disposed_meanwhile(db: Database) -> None:
    async with Database(db.url, pool_size=1, max_overflow=0, pool_timeout=20) as small:
        holder = await small.engine.connect()
        waiting = [asyncio.create_task(driver(small)) for _ in range(3)]
        await asyncio.sleep(0.05)
        await small.dispose()
        await holder.close()
        async with asyncio.timeout(10):
            connections = await asyncio.gather(*waiting)

        assert await becomes_true(lambda: not any(map(is_open, connections)))


async def test_an_event_loop_that_does_not_go_on_with_the_first_connection_is_not_waited_for_for_ever(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_pool, "_LOCK_TIMEOUT", 0.05)
    async with Database(db.url) as other:
        connect: Any = pool(other).dispatch.connect
        connect._exec_once_mutex._lock.acquire()

        with pytest.raises(DatabaseUnavailableError):
            async with other.transaction():
                pass

        connect._exec_once_mutex._lock.release()
        await driver(other)


# One event loop after the other.


@on_sqlite
def test_no_more_connections_are_handed_down_than_the_pool_keeps(
    migrated_url: URL, two_loops: tuple[Loop, Loop]
) -> None:
    db = Database(migrated_url, pool_size=1)
    connections = [loop.run(driver(db)) for loop in two_loops]
    for loop in two_loops:
        loop.close()

    async def count() -> tuple[int, int]:
        await driver(db)
        return pool(db).checkedin(), pool(db).overflow()

    assert asyncio.run(count()) == (1, 0)
    assert asyncio.run(becomes_true(lambda: sum(map(is_open, connections)) == 1))
    asyncio.run(db.dispose())


# What is relied upon, and is no promise of SQLAlchemy's.
