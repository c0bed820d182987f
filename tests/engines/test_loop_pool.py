"""Pools in several event loops: at once, one after the other, and where a process forks."""

import asyncio
import copy
import subprocess
import sys
import threading
from collections.abc import Awaitable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL
from sqlalchemy.event.attr import _CompoundListener
from sqlalchemy.util import greenlet_spawn

from sqlmodel_alembic_async import Database, DatabaseUnavailableError, count_pets
from sqlmodel_alembic_async.engines import loop_pool
from sqlmodel_alembic_async.engines.loop_pool import LoopPool

from ..stress import forks, loops
from ..stress.measures import becomes_true

ROOT = Path(__file__).parents[2]
on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


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


def pool(db: Database) -> Any:
    return db.engine.sync_engine.pool


async def driver(db: Database) -> Any:
    async with db.engine.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")
        return (await connection.get_raw_connection()).driver_connection


def is_open(connection: Any) -> bool:
    if hasattr(connection, "_thread"):
        return bool(connection._thread.is_alive())
    return not connection.is_closed() if hasattr(connection, "is_closed") else bool(connection.connected)


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


def test_an_engine_is_built_once_for_all_threads(migrated_url: URL) -> None:
    db = Database(migrated_url)
    start = threading.Barrier(8)
    found: list[object] = []

    def build() -> None:
        start.wait()
        found.append(db.engine)

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(map(id, found))) == 1


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


def test_a_database_that_is_not_connected_can_be_copied(migrated_url: URL) -> None:
    twin = copy.deepcopy(Database(migrated_url))

    assert asyncio.run(counted(twin)) >= 0
    assert "async engine" in str(Database.engine.__doc__)


async def counted(db: Database) -> int:
    async with db, db.reading() as session:
        return await count_pets(session)


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


# Forks.


@on_sqlite
async def test_what_is_closed_already_is_not_closed_before_a_fork(db: Database) -> None:
    await driver(db)
    share = pool(db)._share()
    [record] = share.take_idle()
    await greenlet_spawn(record.invalidate)
    share.idle.put(record)

    pool(db).close_idle_before_fork()

    assert (pool(db).checkedin(), pool(db).checkedout()) == (0, 0)
    assert is_open(await driver(db))


def test_a_forked_process_has_connections_of_its_own(migrated_url: URL) -> None:
    report = forks.fork(migrated_url.render_as_string(hide_password=False))

    assert report.broken == []
    assert report.counts["forks"] > 0


def run(program: str, url: URL) -> str:
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", program]
    ended = subprocess.run(
        [*command, url.render_as_string(hide_password=False)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.stdout + ended.stderr


@on_servers
def test_a_process_that_is_forked_while_a_thread_makes_the_first_connection_connects(migrated_url: URL) -> None:
    program = """
import asyncio, sys
from sqlmodel_alembic_async import Database
from tests.stress.forks import ended, forked, work

db = Database(sys.argv[1])

async def main():
    db.engine.pool.dispatch.connect._exec_once_mutex._lock.acquire()
    print("exit code", await ended(forked(lambda: asyncio.run(work(db)))))

asyncio.run(main())
"""

    assert run(program, migrated_url) == "exit code 0\n"


@on_servers
def test_a_transaction_outlives_a_process_that_is_forked_in_it(migrated_url: URL) -> None:
    program = """
import asyncio, sys
from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet
from sqlmodel_alembic_async.engines.driver_connections import socket_fd
from tests.stress.forks import ended, forked, work

db = Database(sys.argv[1])

async def main():
    async with db.reading() as session:
        before = await count_pets(session)
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
        driver = (await (await session.connection()).get_raw_connection()).driver_connection
        socket = socket_fd(driver)
        code = await ended(forked(lambda: in_child(socket)))
        await create_pet(session, PetCreate(name="Max"))
    async with db.reading() as session:
        print("rows", await count_pets(session) - before, "exit code", code)
    await db.dispose()

def in_child(socket):
    import os, stat
    try:
        has_parents_socket = stat.S_ISSOCK(os.fstat(socket).st_mode)
    except OSError:
        has_parents_socket = False
    assert not has_parents_socket
    asyncio.run(work(db))

asyncio.run(main())
"""

    assert run(program, migrated_url) == "rows 7 exit code 0\n"


@on_sqlite
def test_a_process_that_is_forked_while_its_file_is_in_use_may_not_use_it(migrated_url: URL) -> None:
    program = """
import asyncio, sys
from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet
from tests.stress.forks import ended, forked, work

db = Database(sys.argv[1])

async def main():
    async with db.reading() as session:
        before = await count_pets(session)
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
        code = await ended(forked(in_child))
        await create_pet(session, PetCreate(name="Max"))
    async with db.reading() as session:
        print("rows", await count_pets(session) - before, "exit code", code)
    await db.dispose()

def in_child():
    for _ in range(2):
        try:
            asyncio.run(count())
        except RuntimeError as error:
            print(error)
        asyncio.run(db.dispose())  # What follows has new pools, and is as wrong.

async def count():
    async with db.reading() as session:
        await count_pets(session)

asyncio.run(main())
"""

    lines = run(program, migrated_url).splitlines()

    assert lines[-1] == "rows 2 exit code 0"
    assert len(lines) == 3
    assert all("fork while no session is open" in line for line in lines[:2])


# What is relied upon, and is no promise of SQLAlchemy's.


async def test_sqlalchemy_has_the_private_names_that_loops_rely_upon(db: Database) -> None:
    assert isinstance(pool(db), LoopPool)
    assert "_exec_once_mutex" in _CompoundListener.__slots__
    async with db.session() as session:
        await count_pets(session)
        raw: Any = await (await session.connection()).get_raw_connection()
        assert raw._connection_record.record_info is not None
