"""The patterns of the tutorials work, also with an engine and a session that know nothing of this package."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import delete, update
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession as PlainSession

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    User,
    UserCreate,
    UserHasPetsError,
    count_pets,
    create_pet,
    create_pets,
    create_user,
    databases,
    delete_pet,
    delete_user,
    get_session,
    get_user,
    list_pets,
    migrations,
    stream_pets,
    transfer_pet,
    update_pet,
)


@pytest.fixture(params=["ours", "the host's"])
async def engine(request: pytest.FixtureRequest, empty_url: URL) -> AsyncIterator[AsyncEngine]:
    async with Database(empty_url) as db:
        await migrations.upgrade(database=db)
        if request.param == "ours":
            yield db.engine
        else:
            host = create_async_engine(empty_url)
            yield host
            await host.dispose()


@pytest.mark.parametrize("session_class", [AsyncSession, PlainSession])
async def test_add_commit_refresh_get_update_and_delete(engine: AsyncEngine, session_class: type[PlainSession]) -> None:
    async with session_class(engine) as session:
        user = User(name="chonky")
        session.add_all((user, Pet(name="phroge", owner=user)))
        await session.commit()
        await session.refresh(user)
        user_id = user.id
        assert str(user) == f"User(id={user_id}, name='chonky')"

        pet = (await session.exec(select(Pet).where(Pet.name == "phroge"))).one()
        assert pet.owner_id == user_id
        pet.name = "frog"
        session.add(pet)
        await session.commit()
        await session.refresh(pet)
        assert (pet.name, pet.name_key, pet.version) == ("frog", "frog", 2)

        assert await session.get(User, user_id) is user
        await session.refresh(user, ["pets"])
        assert user.pets == [pet]
        await session.exec(update(Pet).where(Pet.id == pet.id).values(color="green"))
        await session.exec(delete(Pet).where(Pet.id == pet.id))
        await session.delete(user)
        await session.commit()
        assert (await session.exec(select(User))).all() == []


async def test_the_services_work_in_any_session(engine: AsyncEngine) -> None:
    async with PlainSession(engine) as session:
        ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))
        ada_id = ada.id
        assert ada_id is not None
        pet = await create_pet(session, PetCreate(name="Rex", owner_id=ada_id))
        pet_id = pet.id
        assert pet_id is not None
        await session.commit()

        assert (await update_pet(session, pet_id, PetUpdate(species="Dog"), expected_version=1)).version == 2
        with pytest.raises(UserHasPetsError):
            await delete_user(session, ada_id)
        await transfer_pet(session, pet_id, None)
        assert [pet.id for pet in (await list_pets(session, species="dog", ownerless=True)).items] == [pet_id]
        assert (await get_user(session, ada_id, with_pets=True)).pets == []
        await session.commit()
        with pytest.raises(AlreadyExistsError):
            await create_user(session, UserCreate(name="Eve", email="ada@example.com"))
        await session.rollback()
        await delete_pet(session, pet_id)
        await delete_user(session, ada_id)
        assert await create_pets(session, (PetCreate(name="Max") for _ in range(1500))) == 1500
        await session.commit()

        assert len([pet async for pet in stream_pets(session)]) == await count_pets(session) == 1500


async def test_a_dependency_commits_on_success_and_rolls_back_on_an_error(
    empty_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Database(empty_url) as db:
        await db.create_tables()
        monkeypatch.setattr(databases, "database", db)

        async for session in get_session():
            session.add(Pet(name="Rex"))
        with pytest.raises(KeyError):
            async for session in get_session():
                session.add(Pet(name="Lost"))
                raise KeyError

        async with db.reading() as session:
            assert [pet.name for pet in (await list_pets(session)).items] == ["Rex"]
