"""A connection whose task is cancelled while it opens is opened to the end, and closed."""

import asyncio
import gc
import socket

import pytest
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database, DatabaseUnavailableError
from sqlmodel_alembic_async.engines.servers import connecting

from ...stress import interruptions
from ...stress.measures import becomes_true

on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


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
