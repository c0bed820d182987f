"""SQLite's connection: its hops, its transactions, its ends."""

import asyncio
import contextlib
import gc
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet, engines, get_pet
from sqlmodel_alembic_async.engines.sqlite.connection import Connection, connect

from ...stress.measures import becomes_true, descriptors
from . import files
from .files import ALL, NUMBERS, Blocked, numbers

# pytest looks for a fixture among the names of the test's own module.
path = files.path
connection = files.connection
other = files.other
file_db = files.file_db


@pytest.fixture
def other_of_file(file_db: Database) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(str(file_db.url.database), timeout=0, isolation_level=None)) as raw:
        yield raw


# Hops.


class Hops:
    """Counts what is sent to the threads of connections, their ends left out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[Callable[[], Any]] = []
        send = Connection.send

        def count(connection: Connection, function: Callable[[], Any]) -> None:
            if connection._running:
                self.sent.append(function)
            send(connection, function)

        monkeypatch.setattr(Connection, "send", count)

    def __len__(self) -> int:
        return len(self.sent)

    @contextlib.contextmanager
    def are(self, number: int) -> Iterator[None]:
        before = len(self)
        yield
        assert len(self) - before == number


@pytest.fixture
async def hops(file_db: Database, monkeypatch: pytest.MonkeyPatch) -> Hops:
    async with file_db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
    async with file_db.reading() as session:
        await count_pets(session)
    return Hops(monkeypatch)


async def test_a_row_is_read_in_one_hop(file_db: Database, hops: Hops) -> None:
    with hops.are(1):
        async with file_db.reading() as session:
            await get_pet(session, 1)


async def test_a_row_is_created_in_two_hops(file_db: Database, hops: Hops) -> None:
    with hops.are(2):
        async with file_db.transaction() as session:
            await create_pet(session, PetCreate(name="Max"))


@pytest.mark.parametrize("block", ["transaction", "reading"])
async def test_what_does_nothing_takes_no_hop(file_db: Database, hops: Hops, block: str) -> None:
    with hops.are(0):
        async with getattr(file_db, block)():
            pass


async def test_a_transaction_that_fails_before_it_did_anything_takes_no_hop(file_db: Database, hops: Hops) -> None:
    with hops.are(0), pytest.raises(KeyError):
        async with file_db.transaction():
            raise KeyError


async def test_a_rollback_is_sent_and_not_waited_for(file_db: Database, hops: Hops) -> None:
    blocked = Blocked()

    with pytest.raises(KeyError):
        async with asyncio.timeout(5), file_db.transaction() as session:
            await create_pet(session, PetCreate(name="Lost"))
            proxied = await (await session.connection()).get_raw_connection()
            proxied.driver_connection.send(blocked)  # What follows waits for this one, on the thread.
            raise KeyError
    sent = [function.__name__ for function in hops.sent[2:]]
    blocked.released.set()

    assert set(sent) == {"_rollback"}
    async with file_db.transaction() as session:
        assert await count_pets(session) == 1


# Transactions.


async def test_a_lock_is_taken_by_the_first_statement(file_db: Database, other_of_file: sqlite3.Connection) -> None:
    async with file_db.transaction() as session:
        other_of_file.execute("BEGIN IMMEDIATE")
        other_of_file.execute("ROLLBACK")

        await count_pets(session)

        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other_of_file.execute("BEGIN IMMEDIATE")


async def test_a_statement_after_a_begin_that_failed_is_in_a_transaction_nevertheless(
    file_db: Database, other_of_file: sqlite3.Connection
) -> None:
    create = "CREATE TABLE toy (id INTEGER)"
    async with engines.writer(file_db.engine).connect() as connection:
        other_of_file.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(OperationalError, match="locked"):
                await connection.exec_driver_sql(create)
        other_of_file.execute("ROLLBACK")

        await connection.exec_driver_sql(create)
        proxied = await connection.get_raw_connection()
        in_transaction = proxied.driver_connection.in_transaction
        await connection.rollback()

        assert in_transaction
        assert not await connection.run_sync(lambda sync: sync.dialect.has_table(sync, "toy"))


async def test_a_statement_that_fails_leaves_the_transaction_begun(connection: Connection, path: str) -> None:
    connection.begin("BEGIN")
    await connection.execute("INSERT INTO number VALUES (1)")

    with pytest.raises(sqlite3.IntegrityError):
        await connection.execute("INSERT INTO number VALUES (1)")
    await connection.execute("INSERT INTO number VALUES (2)")
    await connection.commit()

    assert numbers(path) == [1, 2]


async def test_autocommit_needs_no_commit_and_ends_with_its_connection(file_db: Database) -> None:
    autocommit = file_db.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.exec_driver_sql("CREATE TABLE toy (id INTEGER)")
        await connection.exec_driver_sql("INSERT INTO toy VALUES (1)")
        await connection.exec_driver_sql("VACUUM")

    async with file_db.engine.connect() as connection:
        await connection.exec_driver_sql("INSERT INTO toy VALUES (2)")
    async with file_db.engine.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT id FROM toy")).scalars().all() == [1]


async def test_a_commit_whose_task_is_cancelled_is_in_when_the_task_ends(
    connection: Connection, other: sqlite3.Connection, path: str
) -> None:
    await connection.execute("INSERT INTO number VALUES (1)")
    other.execute("BEGIN")
    other.execute("SELECT * FROM number").fetchall()  # Without WAL a COMMIT waits for readers.

    committing = asyncio.create_task(connection.commit())
    for _ in range(3):
        await asyncio.sleep(0)
        committing.cancel()
    await asyncio.wait([committing], timeout=0.15)
    ended_early = committing.done()
    other.execute("ROLLBACK")

    with pytest.raises(asyncio.CancelledError):
        await committing
    assert not ended_early
    assert numbers(path) == [1]


async def test_a_statement_that_waits_for_a_lock_ends_with_its_task(path: str, other: sqlite3.Connection) -> None:
    other.execute("BEGIN EXCLUSIVE")
    connection = await connect(path, timeout=60)
    connection.begin("BEGIN IMMEDIATE")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.15):
            await connection.execute("INSERT INTO number VALUES (1)")
    await connection.rollback()
    async with asyncio.timeout(5):
        await connection.close()
    other.execute("ROLLBACK")

    assert numbers(path) == []


async def test_what_has_changed_something_is_not_repeated(connection: Connection, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "second.db", isolation_level=None)) as second:
        second.execute("CREATE TABLE b (i INTEGER)")
        await connection.execute("ATTACH ? AS second", (str(tmp_path / "second.db"),))
        await connection.execute("CREATE TABLE a (i INTEGER)")
        second.execute("BEGIN EXCLUSIVE")

        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await connection.executescript("INSERT INTO a VALUES (1); INSERT INTO second.b VALUES (1)")

    assert await connection.execute_fetchall("SELECT i FROM a") == [(1,)]


def forbid_rollback(action: int, name: str | None, *rest: object) -> int:
    forbidden = action == sqlite3.SQLITE_TRANSACTION and name == "ROLLBACK"
    return sqlite3.SQLITE_DENY if forbidden else sqlite3.SQLITE_OK


async def test_a_connection_that_can_not_roll_back_is_closed(connection: Connection, path: str) -> None:
    await connection.execute("INSERT INTO number VALUES (1)")
    await connection.set_authorizer(forbid_rollback)

    await connection.rollback()

    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        await connection.execute("SELECT 1")
    assert numbers(path) == []


async def test_a_pool_replaces_a_connection_that_can_not_roll_back(file_db: Database) -> None:
    async with file_db.engine.connect() as connection:
        await connection.exec_driver_sql("CREATE TABLE lost (id INTEGER)")
        first = (await connection.get_raw_connection()).driver_connection
        await first.set_authorizer(forbid_rollback)
    gone = await becomes_true(lambda: is_closed(first._conn))

    with contextlib.suppress(DBAPIError):  # Who comes next may have to be told.
        async with file_db.engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
    async with file_db.engine.connect() as connection:
        await connection.exec_driver_sql("CREATE TABLE lost (id INTEGER)")
        second = (await connection.get_raw_connection()).driver_connection

    assert gone
    assert second is not first


def is_closed(raw: sqlite3.Connection) -> bool:
    try:
        _ = raw.in_transaction
    except sqlite3.ProgrammingError:
        return True
    return False


# Ends.


async def test_a_connection_that_is_closed_says_so(path: str) -> None:
    connection = await connect(path)
    cursor = connection.cursor()
    await connection.close()
    await connection.close()

    with pytest.raises(ValueError, match="Connection closed"):
        await cursor.execute("SELECT 1")
    with pytest.raises(ValueError, match="no active connection"):
        connection.cursor()
    assert connection.stop() is None
    assert await becomes_true(lambda: not connection._thread.is_alive())


async def test_a_connection_is_closed_though_it_is_idle_in_a_transaction(path: str) -> None:
    async with connect(path) as connection:
        await connection.execute("INSERT INTO number VALUES (1)")
        await connection.cursor().execute(ALL)

    with contextlib.closing(sqlite3.connect(path, timeout=0)) as raw:
        raw.execute("DELETE FROM number")
    assert numbers(path) == []


async def test_a_connection_whose_driver_has_closed_is_closed_nevertheless(path: str) -> None:
    connection = await connect(path)
    await connection.cursor().execute(ALL)
    await connection.run(connection._conn.close)

    async with asyncio.timeout(5):
        await connection.close()

    assert await becomes_true(lambda: not connection._thread.is_alive())


async def test_who_stops_waiting_for_a_connection_that_its_driver_closes_hears_of_nothing_else(path: str) -> None:
    connection = await connect(path)
    blocked = Blocked(connection._conn.close)
    working = asyncio.create_task(connection.run(blocked))
    await blocked.has_started()

    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working

    blocked.released.set()
    await connection.close()


async def test_what_is_cancelled_before_it_starts_is_not_done(connection: Connection, path: str) -> None:
    blocked = Blocked()
    before = asyncio.create_task(connection.run(blocked))
    await blocked.has_started()
    queued = asyncio.create_task(connection.execute("INSERT INTO number VALUES (1)"))
    await asyncio.sleep(0)

    queued.cancel()
    await asyncio.wait([queued])
    blocked.released.set()
    await before
    await connection.commit()

    assert queued.cancelled()
    assert numbers(path) == []


async def test_a_connection_that_can_not_be_made_leaves_no_thread(tmp_path: Path) -> None:
    connection = connect(str(tmp_path / "missing" / "x.db"))

    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        await connection

    assert await becomes_true(lambda: not connection._thread.is_alive())


async def test_a_statement_that_is_only_about_to_start_is_interrupted_by_close(path: str) -> None:
    connection = await connect(path)
    running = threading.Event()
    await connection.create_function("note", 1, lambda i: running.set())
    waiting = Blocked()
    endless = NUMBERS.format(10**9, "max(note(i))")

    def work() -> None:
        waiting()
        connection._conn.execute(endless)

    working = asyncio.create_task(connection.run(work))
    await waiting.has_started()
    working.cancel()
    await asyncio.wait([working])  # There was nothing to interrupt yet.
    waiting.released.set()
    assert await asyncio.to_thread(running.wait, 20)
    async with asyncio.timeout(5):
        await connection.close()

    assert await becomes_true(lambda: not connection._thread.is_alive())


async def begun(path: str, *, used: bool = True) -> Connection:
    """A connection, with a lock if it is used, which nobody will close."""
    connection = await connect(path)
    if used:
        await connection.execute("INSERT INTO number VALUES (1)")
    return connection


def ended_quietly(thread: threading.Thread, said: list[warnings.WarningMessage], path: str) -> bool:
    thread.join(3)
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as raw:
        raw.execute("DELETE FROM number")
    return not thread.is_alive() and [str(warning.message) for warning in said] == []


@pytest.mark.parametrize("used", [False, True])
async def test_a_connection_that_nobody_closed_is_closed_in_silence(path: str, used: bool) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        connection = await begun(path, used=used)
        thread = connection._thread
        del connection
        gc.collect()

        assert await asyncio.to_thread(ended_quietly, thread, said, path)


@pytest.mark.parametrize("used", [False, True])
def test_a_connection_that_nobody_closed_is_closed_in_silence_after_its_event_loop(path: str, used: bool) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        connection = asyncio.run(begun(path, used=used))
        thread = connection._thread
        del connection
        gc.collect()

        assert ended_quietly(thread, said, path)


def test_a_connection_is_stopped_outside_of_an_event_loop(path: str) -> None:
    connection = asyncio.run(begun(path))

    assert connection.stop() is None

    assert ended_quietly(connection._thread, [], path)
    assert connection._connection is None


def test_a_connection_that_is_closed_ends_without_being_stopped_again(path: str) -> None:
    async def close() -> Connection:
        connection = await connect(path)
        await connection.close()
        return connection

    connection = asyncio.run(close())
    thread = connection._thread
    del connection
    gc.collect()

    assert ended_quietly(thread, [], path)


# What is relied upon, and is nobody's promise.


async def test_an_interruption_may_come_while_the_thread_lets_go_of_the_connection(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await connect(path)
    reading = asyncio.create_task(connection.run(connection._conn.execute, NUMBERS.format(10**9, "count(*)")))
    await asyncio.sleep(0.05)
    looks = [connection._conn]  # There at the first look, gone at the next one.

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_connection", property(lambda self: looks.pop() if looks else None), raising=False)
        connection._interrupt()

    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await reading
    await connection.close()


async def test_a_connection_that_is_opened_after_its_task_was_cancelled_is_closed(path: str) -> None:
    closed: list[bool] = []
    asked, answer = threading.Event(), threading.Event()

    class Noted(sqlite3.Connection):
        def close(self) -> None:
            closed.append(True)
            super().close()

    def open_slowly() -> sqlite3.Connection:
        asked.set()
        answer.wait()
        return sqlite3.connect(path, check_same_thread=False, factory=Noted)

    connection = Connection(open_slowly, lock_timeout=1)
    opening = asyncio.ensure_future(connection)
    await asyncio.to_thread(asked.wait)
    opening.cancel()
    await asyncio.wait([opening])
    answer.set()

    assert opening.cancelled()
    assert await becomes_true(lambda: not connection._thread.is_alive())
    assert closed == [True]


async def test_a_connection_whose_task_is_cancelled_at_once_is_not_even_opened(path: str) -> None:
    opened: list[bool] = []

    def note() -> sqlite3.Connection:
        opened.append(True)
        return sqlite3.connect(path)

    connection = Connection(note, lock_timeout=1)
    connection._thread.start = lambda: None  # type: ignore[method-assign]  # it begins when it is told to
    opening = asyncio.ensure_future(connection)
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    threading.Thread.start(connection._thread)

    assert await becomes_true(lambda: not connection._thread.is_alive())
    assert opened == []


async def test_a_file_is_closed_though_a_traceback_keeps_a_statement_that_failed(path: str) -> None:
    before = descriptors()
    connection = await connect(path)
    await connection.cursor().execute("SELECT * FROM number")
    with pytest.raises(sqlite3.OperationalError) as kept:
        await connection.cursor().execute("SELECT abs(-9223372036854775807 - 1)")

    await connection.close()

    assert descriptors() == before
    assert kept.traceback
