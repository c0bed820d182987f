"""Cancelled, once or again and again, by asyncio or anyio: no connection, slot, lock or statement is left behind."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import asyncmy
import asyncpg
import greenlet
import pytest
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from sqlmodel_alembic_async import Database

from ...stress import cancels, interruptions
from ..connections import run_program

on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


@pytest.fixture
def url(migrated_url: URL) -> Iterator[URL]:
    """The URL of the migrated database, which is left without rows."""
    yield migrated_url
    asyncio.run(delete_pets(migrated_url))


async def delete_pets(url: URL) -> None:
    async with Database(url) as db, db.engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM pet")


@pytest.mark.parametrize("how", interruptions.HOWS)
@pytest.mark.parametrize("tasks", interruptions.TASKS)
async def test_an_interruption_at_any_moment_leaves_nothing_behind(url: URL, how: str, tasks: str) -> None:
    report = await interruptions.interrupt(url, how, tasks, rounds=40)

    assert report.broken == []
    assert report.counts["units"] == 80


IN_UVLOOP = """
import sys, uvloop
from sqlalchemy.engine import make_url
from tests.stress import interruptions

report = uvloop.run(interruptions.interrupt(make_url(sys.argv[1]), sys.argv[2], rounds=40))
print(report.counts["units"], report.broken)
"""


@pytest.mark.parametrize("how", interruptions.HOWS)
def test_an_interruption_in_uvloop_leaves_nothing_behind(url: URL, how: str) -> None:
    assert run_program(IN_UVLOOP, url, how) == "80 []\n"


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


def connecting_function(url: URL) -> tuple[Callable[..., Awaitable[Any]], list[dict[str, Any]]]:
    """Return a function that connects as the driver does, and the arguments with which it was called."""
    connect = {"asyncpg": asyncpg, "asyncmy": asyncmy}[url.get_driver_name()].connect
    calls: list[dict[str, Any]] = []

    async def counted(*args: Any, **options: Any) -> Any:
        calls.append(options)
        return await connect(*args, **options)

    return counted, calls


async def read(db: Database, statement: str) -> None:
    async with db.reading() as session:
        await (await session.connection()).exec_driver_sql(statement)


@on_servers
async def test_a_statement_is_ended_over_a_connection_that_the_callers_function_opens(
    migrated_url: URL, engine_name: str
) -> None:
    connect, calls = connecting_function(migrated_url)
    async with Database(migrated_url, connect_args={"async_creator_fn": connect}) as db:
        work = asyncio.create_task(read(db, cancels.READS[engine_name]))
        await asyncio.sleep(0.2)
        assert len(calls) == 1

        work.cancel()
        await asyncio.wait([work])

    assert work.cancelled()
    assert len(calls) == 2


@on_servers
@pytest.mark.parametrize("error", [None, OSError()])
async def test_a_connection_that_is_given_up_without_a_cancellation_needs_no_other_one(
    migrated_url: URL, error: BaseException | None
) -> None:
    connect, calls = connecting_function(migrated_url)
    options = {"connect_args": {"async_creator_fn": connect}}
    async with Database(migrated_url, **options) as db, db.engine.connect() as connection:
        await connection.invalidate(error)

    assert len(calls) == 1


@on_servers
async def test_a_task_is_cancelled_where_the_callers_engine_opens_its_connections_itself(
    migrated_url: URL, engine_name: str
) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    arguments = create_async_engine(migrated_url).dialect.create_connect_args(migrated_url)
    connect, _ = connecting_function(migrated_url)
    async with Database(migrated_url, async_creator=lambda: connect(*arguments[0], **arguments[1])) as db:
        work = asyncio.create_task(
            read(db, {"postgresql": "SELECT pg_sleep(1)", "mariadb": "SELECT sleep(1)"}[engine_name])
        )
        await asyncio.sleep(0.2)

        work.cancel()
        await asyncio.wait([work])

    assert work.cancelled()
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
    report = interruptions.Report()
    await interruptions.claim_no_connection(migrated_url, report)  # The server ends the statement in its own time.
    assert report.broken == []
