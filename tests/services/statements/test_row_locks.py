"""A row that is read for an update: nobody changes it until the transaction ends."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession as StockSession

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    StorageError,
    TransactionConflictError,
    UserCreate,
    create_pet,
    create_user,
    get_pet,
    get_user,
    update_pet,
)

from ...conftest import Statements

TASKS = 12
on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)


async def new_pet(db: Database) -> int:
    async with db.transaction() as session:
        pet = await create_pet(session, PetCreate(name="Rex", weight_g=1))
    assert pet.id is not None
    return pet.id


async def gain_a_gram(session: StockSession, pet_id: int) -> None:
    pet = await get_pet(session, pet_id, for_update=True)
    await asyncio.sleep(0.005)
    pet.weight_g = (pet.weight_g or 0) + 1
    await session.flush()


async def weight_of(db: Database, pet_id: int) -> int | None:
    async with db.reading() as session:
        return (await get_pet(session, pet_id)).weight_g


async def test_no_update_is_lost_without_a_retry(db: Database) -> None:
    pet_id = await new_pet(db)

    async def work() -> None:
        async with db.transaction() as session:
            await gain_a_gram(session, pet_id)

    await asyncio.gather(*(work() for _ in range(TASKS)))

    assert await weight_of(db, pet_id) == 1 + TASKS


async def test_no_update_of_a_plain_session_is_lost(db: Database) -> None:
    pet_id = await new_pet(db)

    async def work() -> None:
        async with db.session() as session:
            await gain_a_gram(session, pet_id)
            await session.commit()

    await asyncio.gather(*(work() for _ in range(TASKS)))

    assert await weight_of(db, pet_id) == 1 + TASKS


async def test_no_update_is_lost_on_an_engine_that_is_not_prepared(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'own.db'}", connect_args={"timeout": 30})
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    async with StockSession(engine) as session:
        pet_id = (await create_pet(session, PetCreate(name="Rex", weight_g=1))).id
        await session.commit()

    async def work() -> None:
        async with StockSession(engine) as session:
            await gain_a_gram(session, pet_id)
            await session.commit()

    await asyncio.gather(*(work() for _ in range(TASKS)))

    async with StockSession(engine) as session:
        assert (await get_pet(session, pet_id)).weight_g == 1 + TASKS
    await engine.dispose()


async def test_a_held_row_is_read_again_before_it_is_changed(db: Database, engine_name: str) -> None:
    """Without the lock, the edit would raise StaleVersionError."""
    pet_id = await new_pet(db)
    async with db.session() as session:
        held = await get_pet(session, pet_id)
        await session.commit()
        async with db.transaction() as other:
            await update_pet(other, pet_id, PetUpdate(weight_g=50))

        locked = await get_pet(session, pet_id, for_update=True)
        assert locked is held
        await gain_a_gram(session, pet_id)
        await session.commit()

    assert await weight_of(db, pet_id) == 51


@pytest.mark.parametrize("is_user", [True, False])
async def test_a_change_waits_for_the_lock(db: Database, is_user: bool) -> None:
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada"))
        rex = await create_pet(session, PetCreate(name="Rex"))
    order = []

    async def change() -> None:
        async with db.transaction() as session:
            row = await (get_user(session, ada.id) if is_user else get_pet(session, rex.id))
            row.name = f"{row.name} II"
            await session.flush()
            order.append("changed")

    async with db.transaction() as session:
        if is_user:
            await get_user(session, ada.id, for_update=True)
        else:
            await get_pet(session, rex.id, for_update=True)
        waiting = asyncio.create_task(change())
        await asyncio.sleep(0.2)
        order.append("released")
    await waiting

    assert order == ["released", "changed"]


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_a_new_pet_does_not_wait_for_its_locked_owner(db: Database) -> None:
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada"))

    async with db.transaction() as session:
        await get_user(session, ada.id, for_update=True)
        async with db.session() as other, asyncio.timeout(5):
            await create_pet(other, PetCreate(name="Rex", owner_id=ada.id))
            await other.commit()


@pytest.mark.parametrize("snapshot", [True, False])
async def test_a_read_only_session_locks_nothing(db: Database, snapshot: bool) -> None:
    pet_id = await new_pet(db)

    for work in (get_pet, get_user):
        with pytest.raises(StorageError, match="read-only"):
            async with db.reading(snapshot=snapshot) as session:
                await work(session, pet_id, for_update=True)
    with pytest.raises(StorageError, match="read-only"):
        async with db.reading(snapshot=snapshot) as session:
            await session.exec(select(Pet).with_for_update())
    async with db.reading(snapshot=snapshot) as session:
        assert (await session.exec(select(Pet.id).where(col(Pet.name) == "Rex"))).all() == [pet_id]


async def test_it_takes_one_statement_more_where_sqlite_has_no_lock_yet(
    db: Database, statements: Statements, engine_name: str
) -> None:
    pet_id = await new_pet(db)

    async with db.transaction() as session:
        assert await statements.taken_by(get_pet(session, pet_id, for_update=True)) == 1
    async with db.session() as session:
        number = await statements.taken_by(get_pet(session, pet_id, for_update=True))
        assert number == (2 if engine_name == "sqlite" else 1)
        assert not session.dirty


@on_sqlite
async def test_a_transaction_that_cannot_see_the_newest_row_is_a_conflict(db: Database) -> None:
    pet_id = await new_pet(db)

    async with db.session() as session:
        await get_pet(session, pet_id)
        async with db.transaction() as other:
            await update_pet(other, pet_id, PetUpdate(weight_g=2))
        with pytest.raises(TransactionConflictError):
            await get_pet(session, pet_id, for_update=True)


async def test_a_key_that_no_row_can_have_locks_nothing(session: AsyncSession, statements: Statements) -> None:
    for key in (0, -1, 2**31):
        with pytest.raises(LookupError):
            await get_pet(session, key, for_update=True)
    assert len(statements) == 0
    with pytest.raises(TypeError):
        await get_user(session, "1", for_update=True)  # type: ignore[arg-type]
    with pytest.raises(LookupError):
        await get_user(session, 2_000_000_000, for_update=True)


async def test_what_a_rollback_undoes_is_undone_in_a_locked_row(db: Database) -> None:
    pet_id = await new_pet(db)

    async with db.transaction() as session:
        savepoint = await session.begin_nested()
        pet = await get_pet(session, pet_id, for_update=True)
        await gain_a_gram(session, pet_id)
        await savepoint.rollback()
        await gain_a_gram(session, pet_id)

    assert pet.weight_g == 2
    assert await weight_of(db, pet_id) == 2
