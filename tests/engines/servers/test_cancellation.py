"""Cancelled, once or again and again, by asyncio or anyio: no connection, slot, lock or statement is left behind."""

import asyncio
import gc
import socket
from collections.abc import Coroutine
from typing import Any

import greenlet
import pytest
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, DatabaseUnavailableError
from sqlmodel_alembic_async.engines.servers import connecting
from sqlmodel_alembic_async.engines.waiting import until_done

from ...stress import cancels, interruptions
from ...stress.measures import becomes_true

on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


# Units of work.


@pytest.mark.parametrize("how", interruptions.HOWS)
@pytest.mark.parametrize("tasks", interruptions.TASKS)
async def test_an_interruption_at_any_moment_leaves_nothing_behind(migrated_url: URL, how: str, tasks: str) -> None:
    report = await interruptions.interrupt(migrated_url, how, tasks, rounds=40)

    assert report.broken == []
    assert report.counts["units"] == 80
    async with Database(migrated_url) as db, db.transaction() as session:
        await (await session.connection()).exec_driver_sql("DELETE FROM pet")


@on_servers
async def test_the_order_to_end_a_statement_is_given_outside_of_sqlalchemys_greenlet(
    db: Database, engine_name: str
) -> None:
    # A task that starts at once, as asyncio.eager_task_factory has them, would start in the greenlet that makes it.
    loop = asyncio.get_running_loop()
    in_greenlet: dict[str, bool] = {}

    def make(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        in_greenlet[coro.__qualname__] = greenlet.getcurrent().parent is not None
        return asyncio.Task(coro, loop=loop, **options)

    async def sleep() -> None:
        async with db.reading() as session:
            await (await session.connection()).exec_driver_sql(
                cancels.READS[db.engine.name.replace("mysql", "mariadb")]
            )

    work = asyncio.create_task(sleep())
    await asyncio.sleep(0.2)
    loop.set_task_factory(make)
    work.cancel()
    await asyncio.wait([work])
    loop.set_task_factory(None)

    assert in_greenlet["greenlet_spawn"] is False


async def test_waiting_until_something_is_done_is_not_cut_short_by_any_number_of_cancellations() -> None:
    done = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(until_done(done))

    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    done.set_result(None)

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_waiting_for_what_is_done_takes_no_time_and_tells_of_no_cancellation() -> None:
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, done.set_result, None)

    await until_done(done)
    await until_done(done)


# Connecting.


@on_servers
async def test_a_connection_whose_task_is_cancelled_while_it_opens_is_closed(migrated_url: URL) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

    async def connect(db: Database) -> None:
        async with db.engine.connect():
            pass

    for moment in range(60):
        async with Database(migrated_url) as db:  # Its first connection asks the server what it is.
            opening = asyncio.create_task(connect(db))
            await asyncio.wait([opening], timeout=moment / 4000)
            done = opening.done()
            opening.cancel()
            await asyncio.wait([opening])
            assert done or opening.cancelled() or opening.exception() is None
    assert await becomes_true(lambda: not connecting._opening)

    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
    report = interruptions.Report()
    await interruptions.claim_no_connection(migrated_url, report)
    assert report.broken == []


@on_servers
async def test_a_cancelled_connection_that_fails_later_is_no_complaint(migrated_url: URL) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await answer.wait()
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Database(migrated_url.set(host="127.0.0.1", port=port)) as db:
        opening = asyncio.create_task(db.engine.connect().start())
        await asked.wait()
        opening.cancel()
        await asyncio.wait([opening])
        answer.set()
        assert await becomes_true(lambda: not connecting._opening)
        with pytest.raises(DatabaseUnavailableError):
            async with db.transaction():
                pass

    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


@on_servers
def test_a_connection_that_is_still_opened_at_the_end_of_its_event_loop_is_given_up(migrated_url: URL) -> None:
    complaints: list[object] = []

    async def connect_and_leave() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(context))
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.setblocking(False)
            db = Database(migrated_url.set(host="127.0.0.1", port=silent.getsockname()[1]))
            opening = asyncio.create_task(db.engine.connect().start())
            connection, _ = await loop.sock_accept(silent)
            opening.cancel()
            await asyncio.wait([opening])
            assert connecting._opening
            connection.close()

    asyncio.run(connect_and_leave())

    assert not connecting._opening
    gc.collect()
    assert complaints == []
