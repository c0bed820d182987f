"""Sessions: what they keep, refuse and give back, and how they end."""

import asyncio
import gc
from typing import Any

import anyio
import pytest
from sqlalchemy import delete, insert, text, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import IllegalStateChangeError, ResourceClosedError
from sqlmodel import select

import sqlmodel_alembic_async as package
from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    DatabaseError,
    DatabaseUnavailableError,
    Pet,
    PetCreate,
    PetUpdate,
    StorageError,
    User,
    count_pets,
    create_pet,
    create_pets,
    delete_pet,
    get_pet,
    list_pets,
    sessions,
    update_pet,
)

from .changes import GiveUp
from .conftest import Statements


async def names(db: Database) -> list[str]:
    async with db.reading() as session:
        return [pet.name for pet in (await list_pets(session)).items]


async def test_what_is_held_after_a_commit_stays_readable(db: Database) -> None:
    async with db.transaction() as session:
        pet = await create_pet(session, PetCreate(name="Rex"))

    assert (pet.name, pet.version) == ("Rex", 1)
    assert AsyncSession(db.engine).sync_session.expire_on_commit is False


async def test_reading_refuses_to_write(db: Database) -> None:
    async with db.transaction() as session:
        pet = await create_pet(session, PetCreate(name="Rex"))

    async def add(session: AsyncSession) -> None:
        session.add(Pet(name="Max"))

    async def change(session: AsyncSession) -> None:
        (await get_pet(session, pet.id)).name = "Max"

    for write in (
        add,
        change,
        lambda session: create_pet(session, PetCreate(name="Max")),
        lambda session: create_pets(session, [PetCreate(name="Max")]),
        lambda session: update_pet(session, pet.id, PetUpdate(name="Max")),
        lambda session: delete_pet(session, pet.id),
        lambda session: session.exec(text("DELETE FROM pet")),
    ):
        with pytest.raises(StorageError):
            async with db.reading() as session:
                await write(session)
    async with db.transaction() as session:
        await update_pet(session, pet.id, PetUpdate(name="Written"))
    assert await names(db) == ["Written"]


async def test_reading_takes_no_offence_at_a_change_that_changes_nothing(db: Database) -> None:
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))

    async with db.reading() as session:
        pet = (await list_pets(session)).items[0]
        pet.name = "Rex"

        assert await count_pets(session) == 1


async def test_a_session_is_of_no_use_after_its_block(db: Database) -> None:
    for block in (db.transaction, db.reading):
        async with block() as session:
            await count_pets(session)

        with pytest.raises(package.DatabaseError, match="the session is closed"):
            await count_pets(session)
        with pytest.raises(package.DatabaseError):
            await create_pet(session, PetCreate(name="Lost"))
    assert await names(db) == []


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_a_task_that_is_cancelled_while_its_session_closes_ends_as_cancelled(db: Database) -> None:
    async def unit() -> None:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Lost"))
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # This comes up where the task waits next: for the ROLLBACK.
            raise KeyError

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(unit())

    assert db.engine.sync_engine.pool.checkedout() == 0
    assert await names(db) == []


async def test_a_session_closes_when_another_task_has_ended_its_commit(db: Database) -> None:
    with pytest.raises(KeyError):
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Rex"))
            committing = asyncio.create_task(session.commit())
            await asyncio.sleep(0)  # It has sent the COMMIT.
            raise KeyError

    await committing
    assert await names(db) == ["Rex"]


async def test_a_session_that_is_not_closed_gives_its_connection_back(db: Database) -> None:
    async with db.reading() as session:
        await session.exec(select(Pet))
    gc.collect()

    assert db.engine.sync_engine.pool.checkedout() == 0


async def test_what_needs_a_transaction_says_so_where_there_is_none(db: Database) -> None:
    async with db.reading() as session:
        with pytest.raises(DatabaseError, match="snapshot=True"):
            session.begin_nested()
        with pytest.raises(DatabaseError, match="snapshot=True"):
            await session.stream(select(Pet))
        with pytest.raises(DatabaseError, match="snapshot=True"):
            await session.stream_scalars(select(Pet))

    async with db.reading(snapshot=True) as session, session.begin_nested():
        assert [pet async for pet in await session.stream_scalars(select(Pet))] == []


async def test_a_session_that_stays_in_use_is_not_closed(migrated_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_CLOSE_TIMEOUT", 0.01)
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.5}
    async with Database(migrated_url, **options) as db, db.session() as holder:
        await count_pets(holder)

        with pytest.raises(IllegalStateChangeError):
            async with db.session() as session:
                other = asyncio.ensure_future(count_pets(session))
                await asyncio.sleep(0)

        with pytest.raises(DatabaseUnavailableError):
            await other
        await session.close()


async def test_who_is_cancelled_in_a_savepoint_learns_that(db: Database) -> None:
    async with db.transaction() as session:
        sleep = {"postgresql": "SELECT pg_sleep(5)", "mysql": "SELECT sleep(5)"}.get(session.get_bind().dialect.name)
        endless = sleep or "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), db.transaction() as session:
            await create_pet(session, PetCreate(name="Rex"))
            async with session.begin_nested():
                await session.exec(text(endless))

    async with db.reading() as session:
        assert await count_pets(session) == 0


async def test_a_savepoint_that_lost_its_connection_says_so(db: Database) -> None:
    with pytest.raises(DatabaseUnavailableError):
        async with db.transaction() as session, session.begin_nested():
            await create_pet(session, PetCreate(name="Rex"))
            await (await session.connection()).invalidate()

    async with db.reading() as session:
        assert await count_pets(session) == 0


async def test_a_session_is_closed_to_the_end_where_anyio_cancels_again_and_again(db: Database) -> None:
    with anyio.CancelScope() as scope:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Never"))
            scope.cancel()
            await anyio.sleep(10)

    assert scope.cancelled_caught
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))


async def test_a_session_gives_its_connection_back_whatever_goes_wrong_in_memory(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(session: object) -> None:
        raise GiveUp

    session = db.session()
    await create_pet(session, PetCreate(name="Rex"))
    with monkeypatch.context() as patch, pytest.raises(GiveUp):
        patch.setattr(sessions, "undo_everything", fail)
        await session.close()

    assert not session.in_transaction()
    async with db.transaction() as other:
        assert await count_pets(other) == 0
        await create_pet(other, PetCreate(name="Max"))


@pytest.mark.parametrize("end", ["rollback", "commit"])
async def test_a_savepoint_that_has_ended_does_not_roll_back_the_one_around_it(db: Database, end: str) -> None:
    async with db.transaction() as session, session.begin_nested():
        await create_pet(session, PetCreate(name="Rex"))
        with pytest.raises(GiveUp):
            async with session.begin_nested() as inner:
                await getattr(inner, end)()
                raise GiveUp
        with pytest.raises(ResourceClosedError):
            await inner.rollback()

    assert await names(db) == ["Rex"]


@pytest.mark.parametrize("statement", [insert(User).values(name="Ada"), update(User).values(city="Rome"), delete(User)])
async def test_a_reader_refuses_a_statement_that_writes_before_it_is_sent(
    db: Database, statements: Statements, statement: Any
) -> None:
    async with db.reading() as session:
        with pytest.raises(StorageError, match="the session is read-only"):
            await session.exec(statement)

    assert len(statements) == 0
