"""Two tasks at one connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InvalidRequestError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection

from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet
from sqlmodel_alembic_async.engines import task_guard

from ..stress.cancels import READS
from ..stress.measures import becomes_true, checked_out


@asynccontextmanager
async def used_by_another(db: Database, engine_name: str) -> AsyncIterator[tuple[AsyncConnection, "asyncio.Task[Any]"]]:
    """Give a connection, and the task whose statement is under way there; nothing that it did may be in afterwards."""
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
    connection = await db.engine.connect()
    await connection.exec_driver_sql("DELETE FROM pet")
    first = asyncio.create_task(connection.exec_driver_sql(READS[engine_name]))
    assert await becomes_true(lambda: connection.info.get(task_guard._ACTIVE_TASK) is first)
    yield connection, first
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await connection.close()
    async with db.reading() as session:
        assert await count_pets(session) == 1
    assert checked_out(db) == 0


async def test_a_second_tasks_statement_is_refused(db: Database, engine_name: str) -> None:
    async with used_by_another(db, engine_name) as (connection, first):
        with pytest.raises(InvalidRequestError, match="use one session per task"):
            await connection.exec_driver_sql("SELECT 1")

        assert not first.done()


async def test_a_second_tasks_commit_is_refused_and_closes_the_connection(db: Database, engine_name: str) -> None:
    async with used_by_another(db, engine_name) as (connection, _):
        with pytest.raises(InvalidRequestError, match="use one session per task"):
            await connection.commit()

        assert connection.invalidated


async def test_a_second_tasks_rollback_closes_the_connection(db: Database, engine_name: str) -> None:
    async with used_by_another(db, engine_name) as (connection, _):
        await connection.rollback()

        assert connection.invalidated


async def test_one_task_after_the_other_may_use_a_connection(db: Database) -> None:
    async with db.engine.connect() as connection:
        for statement in ("SELECT 1", "SELECT nonsense", "ROLLBACK", "SELECT 1"):
            work = connection.rollback() if statement == "ROLLBACK" else connection.exec_driver_sql(statement)
            [outcome] = await asyncio.gather(asyncio.ensure_future(work), return_exceptions=True)
            assert isinstance(outcome, DBAPIError) is (statement == "SELECT nonsense")
        await connection.commit()

    assert checked_out(db) == 0


async def test_a_lost_connection_is_opened_again_once_for_each_statement(db: Database) -> None:
    attempts = 0

    def refuse(*arguments: object) -> None:
        nonlocal attempts
        attempts += 1
        raise ConnectionRefusedError

    async with db.engine.connect() as connection:
        await connection.invalidate()
        await connection.rollback()
        event.listen(db.engine.sync_engine, "do_connect", refuse)
        with pytest.raises(StatementError, match="ConnectionRefusedError"):
            await connection.exec_driver_sql("SELECT 1")
        event.remove(db.engine.sync_engine, "do_connect", refuse)

    assert attempts == 1
