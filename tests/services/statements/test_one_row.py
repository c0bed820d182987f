"""The statements on one row, and the row that the session has afterwards."""

from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ConfigDict, ValidationError
from sqlmodel import Field, col

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    User,
    UserCreate,
    UserUpdate,
    count_pets,
    count_users,
    create_pet,
    create_pets,
    create_user,
    create_users,
    delete_pet,
    get_user,
    update_pet,
    update_user,
)
from sqlmodel_alembic_async.services.statements import one_row

from ...conftest import Statements


@pytest.mark.parametrize("data", [{"name": "Ada"}, PetCreate(name="Rex"), User(name="Ada")])
async def test_only_shapes_are_accepted(session: AsyncSession, data: UserCreate) -> None:
    with pytest.raises(TypeError, match="expected UserCreate"):
        await create_user(session, data)
    with pytest.raises(TypeError, match="expected UserCreate"):
        await create_users(session, [data])
    with pytest.raises(TypeError, match="expected UserUpdate"):
        await update_user(session, 1, data)


class Visitor(PetCreate):
    room: int = 1
    vet: str | None = None


class VisitorUpdate(PetUpdate):
    owner_id: int | None = None


class Customer(UserCreate):
    model_config = ConfigDict(extra="allow")


class CustomerUpdate(UserUpdate):
    discount: int = 0


async def test_a_subclass_with_more_fields_is_refused_by_their_names(session: AsyncSession) -> None:
    visitor = Visitor(name="Rex", vet="Eve")
    with pytest.raises(TypeError, match=r"^Visitor has fields that PetCreate does not have: room, vet\b"):
        await create_pet(session, visitor)
    with pytest.raises(TypeError, match=r"Visitor .*: room, vet"):
        await create_pet(session, visitor, on_similar="error")
    with pytest.raises(TypeError, match=r"Visitor .*: room, vet"):
        await create_pets(session, [PetCreate(name="Max"), visitor])
    with pytest.raises(TypeError, match=r"VisitorUpdate .*: owner_id"):
        await update_pet(session, 1, VisitorUpdate(name="Rex"))
    with pytest.raises(TypeError, match=r"Customer .*: discount, since"):
        await create_user(session, Customer(name="Ada", since=2020, discount=3))
    with pytest.raises(TypeError, match=r"CustomerUpdate .*: discount"):
        await update_user(session, 1, CustomerUpdate())

    assert await count_pets(session) == 0
    assert await create_user(session, Customer(name="Ada")) is not None


class LoosePet(PetCreate):
    name: Any = "Rex"
    species: str | None = "  Cat "
    microchip: str | None = None
    sex: str = "unknown"


class LoosePetUpdate(PetUpdate):
    name: str | None = None
    species: str | None = None


class ShortNames(UserCreate):
    name: str = Field(max_length=3, alias="Full name")


async def test_a_subclass_cannot_drop_a_rule_of_a_row(session: AsyncSession) -> None:
    pet = await create_pet(session, LoosePet(breed="Manx"))

    assert (pet.name, pet.species, pet.breed) == ("Rex", "cat", "Manx")
    for bad in (LoosePet(microchip="12"), LoosePet(sex="none"), LoosePet(species="x" * 51), LoosePet(name=7)):
        for work in (
            create_pet(session, bad),
            create_pet(session, bad, on_similar="error"),
            create_pets(session, [PetCreate(name="Max"), bad]),
        ):
            with pytest.raises(ValidationError):
                await work
    assert await create_pets(session, [LoosePet(name=" Max ", species="DOG")]) == 1
    assert await count_pets(session, species="dog", name_prefix="max") == 1


async def test_a_subclass_of_an_update_cannot_drop_a_rule_of_a_row(session: AsyncSession) -> None:
    pet = await create_pet(session, PetCreate(name="Rex", breed="Pug"))

    changed = await update_pet(session, pet.id, LoosePetUpdate(species=" DOG "))

    assert (changed.name, changed.species, changed.breed, changed.version) == ("Rex", "dog", "Pug", 2)
    with pytest.raises(ValidationError):
        await update_pet(session, pet.id, LoosePetUpdate(name=None))
    with pytest.raises(ValidationError):
        await update_pet(session, pet.id, LoosePetUpdate(species="x" * 51))


async def test_a_subclass_keeps_the_rules_that_it_adds(session: AsyncSession) -> None:
    assert (await create_user(session, ShortNames(**{"Full name": "Ada"}))).name == "Ada"
    with pytest.raises(ValidationError):
        await create_user(session, ShortNames(**{"Full name": "Ada"}).model_copy(update={"name": "Adelaide"}))


@pytest.mark.parametrize("engine_name", ["mariadb"], indirect=True)
async def test_where_an_insert_returns_nothing_the_row_is_read(
    db: Database, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session.connection()
    monkeypatch.setattr(db.engine.dialect, "insert_returning", False)

    user = await create_user(session, UserCreate(name=" Ada ", email="ADA@example.com"))

    assert (user.name, user.email, user.version) == ("Ada", "ada@example.com", 1)
    assert await get_user(session, user.id) is user


async def test_a_rollback_takes_a_created_row_out_of_the_session(session: AsyncSession) -> None:
    savepoint = await session.begin_nested()
    lost = await create_user(session, UserCreate(name="Lost"))
    async with session.begin_nested():
        inner = await create_user(session, UserCreate(name="Lost within"))
    await savepoint.rollback()

    assert lost not in session
    assert inner not in session
    session.add(User(name="Ada"))  # SQLite gives it the lost one's id.
    await session.flush()
    kept = await create_user(session, UserCreate(name="Bob"))
    await session.rollback()
    assert kept not in session
    assert await count_users(session) == 0


async def test_a_key_that_no_row_can_have_asks_the_database_nothing(
    session: AsyncSession, statements: Statements
) -> None:
    for key in (0, -1, 2**31, 2**63):
        assert await statements.taken_by(one_row.fetch_by_id(session, User, key)) == 0
        assert await one_row.fetch_by_id(session, User, key) is None
        assert await one_row.update(session, User, key, {"city": "Rome"}) is None
        assert await one_row.delete(session, User, key) is False

    assert len(statements) == 0


async def test_a_row_is_changed_only_where_it_satisfies_the_conditions(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", city="Oslo"))

    refused = await one_row.update(session, User, ada.id, {"city": "Rome"}, col(User.city) == "Bern")
    changed = await one_row.update(session, User, ada.id, {"city": "Paris"}, col(User.city) == "Oslo")

    assert refused is None
    assert changed is ada
    assert (ada.city, ada.version) == ("Paris", 2)


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_deleted_row_leaves_the_session_too(session: AsyncSession, is_held: bool) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    ada_id = ada.id
    if not is_held:
        session.expunge(ada)

    assert await one_row.delete(session, User, ada_id, col(User.city) == "Rome") is False
    assert await one_row.delete(session, User, ada_id) is True
    assert await one_row.delete(session, User, ada_id) is False

    assert ada not in session
    assert await one_row.fetch_by_id(session, User, ada_id) is None


async def test_a_deleted_row_that_was_not_flushed_before_leaves_the_session(session: AsyncSession) -> None:
    pet = Pet(id=77, name="Rex")
    session.add(pet)

    await delete_pet(session, 77)

    assert pet not in session
    assert sa.inspect(pet).deleted
