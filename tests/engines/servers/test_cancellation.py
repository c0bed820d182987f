"""Cancelled, once or again and again, by asyncio or anyio: no connection, slot, lock or statement is left behind."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import greenlet
import pytest
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import Database

from ...stress import cancels, interruptions

on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


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
