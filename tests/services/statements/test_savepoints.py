"""Savepoints of the package's own: how they begin on a host's engine, and how they end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession as HostSession

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    DatabaseUnavailableError,
    PetCreate,
    User,
    count_pets,
    count_users,
    create_pet,
    import_pets,
    list_pets,
)
from sqlmodel_alembic_async.engines import prepare
from sqlmodel_alembic_async.services.csv_files import file_format
from sqlmodel_alembic_async.services.statements.savepoints import savepoint

from ..csv_files.imports import cancel_half_way, counts, rows


async def test_a_host_applications_session_is_told_that_its_task_was_cancelled(
    migrated_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_format, "BATCH_SIZE", 10)
    engine = prepare(create_async_engine(migrated_url))

    @asynccontextmanager
    async def transaction() -> AsyncIterator[HostSession]:
        async with HostSession(engine) as session, session.begin():
            yield session

    await cancel_half_way(transaction())

    async with HostSession(engine) as session:
        assert await count_pets(session) == 0
    await engine.dispose()


@pytest.mark.parametrize("ready", [True, False])
async def test_an_import_is_the_callers_to_roll_back_on_any_engine_of_a_host(migrated_url: URL, ready: bool) -> None:
    engine = create_async_engine(migrated_url)
    if ready:
        prepare(engine)

    async with HostSession(engine) as session:
        for _ in range(2):
            assert counts(await import_pets(session, rows("name,owner_name", "Rex,Ada"))) == (1, 0, 0, 0)
        await session.rollback()

        assert (await count_pets(session), await count_users(session)) == (0, 0)
    await engine.dispose()


async def test_an_error_takes_back_what_was_done_inside_and_nothing_else(db: Database) -> None:
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Before"))
        with pytest.raises(KeyError):
            async with savepoint(session):
                await create_pet(session, PetCreate(name="Lost"))
                raise KeyError
        await create_pet(session, PetCreate(name="Later"))

    async with db.reading() as session:
        assert [pet.name for pet in (await list_pets(session)).items] == ["Before", "Later"]


async def test_a_savepoint_can_be_rolled_back_without_an_error(db: Database) -> None:
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Before"))
        async with savepoint(session) as nested:
            await create_pet(session, PetCreate(name="Lost"))
            await nested.rollback()
        async with savepoint(session):
            await create_pet(session, PetCreate(name="Kept"))

    async with db.reading() as session:
        assert [pet.name for pet in (await list_pets(session)).items] == ["Before", "Kept"]


async def test_a_savepoint_whose_connection_was_lost_says_so(db: Database) -> None:
    async with db.session() as session:
        with pytest.raises(DatabaseUnavailableError):
            async with savepoint(session):
                await create_pet(session, PetCreate(name="Lost"))
                await (await session.connection()).invalidate()

    async with db.reading() as session:
        assert await count_pets(session) == 0


async def test_a_failure_at_the_end_of_a_savepoint_has_its_error(session: AsyncSession) -> None:
    session.add(User(name="Ada", email="ada@example.com"))

    with pytest.raises(AlreadyExistsError) as caught:
        async with savepoint(session):
            session.add(User(name="Eve", email="ada@example.com"))

    assert caught.value.field == "email"
    assert await count_users(session) == 1
