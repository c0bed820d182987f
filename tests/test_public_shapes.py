"""The shapes in which rows go out."""

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy.orm import load_only

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetPublic,
    User,
    UserCreate,
    UserPublic,
    UserPublicWithPets,
    create_pet,
    create_user,
    get_user,
    list_pets,
    list_users,
)

from .conftest import Statements

TABLES: list[tuple[type[BaseModel], Any]] = [(UserPublic, User), (UserPublicWithPets, User), (PetPublic, Pet)]


@pytest.fixture
async def ada(session: AsyncSession) -> User:
    user = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))
    rex = PetCreate(
        name="Rex", owner_id=user.id, birth_date=date(2020, 2, 2), weight_g=4200, neutered=True, microchip="123456789"
    )
    await create_pet(session, rex)
    return user


@pytest.mark.parametrize(("shape", "table"), TABLES)
def test_a_shape_has_all_columns_but_the_search_key(shape: type[BaseModel], table: Any) -> None:
    columns = {column.name: column.nullable for column in sa.inspect(table).local_table.c}

    nullable = {name: not field.is_required() for name, field in shape.model_fields.items() if name != "pets"}

    assert list(nullable) == [name for name in table.model_fields if name != "name_key"]
    assert nullable | {"name_key": False} == columns


@pytest.mark.parametrize(("shape", "table"), TABLES)
def test_a_shape_has_a_schema_of_plain_names(shape: type[BaseModel], table: Any) -> None:
    schema = shape.model_json_schema(mode="serialization")

    assert schema["title"] == shape.__name__
    assert all(part["title"].replace(" ", "").isalnum() for part in schema["properties"].values())
    assert set(schema.get("$defs", {})) <= {"PetPublic"}
    assert "version" in schema["required"]


async def test_a_row_becomes_a_shape_without_a_statement(
    session: AsyncSession, ada: User, statements: Statements
) -> None:
    user = await get_user(session, ada.id, with_pets=True)
    before = len(statements)

    public = UserPublicWithPets.model_validate(user)

    assert len(statements) == before
    assert public.model_dump(exclude={"pets"}) == user.model_dump(exclude={"name_key"})
    assert [pet.model_dump() for pet in public.pets] == [user.pets[0].model_dump(exclude={"name_key"})]
    assert UserPublic.model_validate(user) == UserPublic(**public.model_dump(exclude={"pets"}))
    assert UserPublicWithPets.model_validate_json(public.model_dump_json()) == public
    assert json.loads(public.model_dump_json())["pets"][0]["birth_date"] == "2020-02-02"


async def test_rows_of_a_page_become_shapes_after_their_session(db: Database) -> None:
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada"))
        await create_pet(session, PetCreate(name="Rex", owner_id=ada.id))
    async with db.reading() as session:
        users = (await list_users(session, with_pets=True)).items
        pets = (await list_pets(session)).items

    # As FastAPI does for a response_model.
    assert TypeAdapter(list[UserPublicWithPets]).validate_python(users, from_attributes=True)[0].pets[0].name == "Rex"
    assert TypeAdapter(list[PetPublic]).validate_python(pets, from_attributes=True)[0].owner_id == ada.id
    assert UserPublic.model_validate(ada).version == 1


async def test_pets_that_are_not_loaded_are_an_error_that_says_how_to_load_them(
    session: AsyncSession, ada: User
) -> None:
    with pytest.raises(
        ValidationError, match=r"not loaded: pets; .*with_pets=True.*refresh\(user, \[\"pets\"\]\)"
    ) as caught:
        UserPublicWithPets.model_validate(ada)

    assert "ada@example.com" not in str(caught.value)
    await session.refresh(ada, ["pets"])
    assert [pet.name for pet in UserPublicWithPets.model_validate(ada).pets] == ["Rex"]


async def test_a_row_that_is_expired_or_partly_loaded_is_an_error_that_says_so(
    session: AsyncSession, ada: User, statements: Statements
) -> None:
    await session.commit()
    session.expire(ada)
    before = len(statements)
    with pytest.raises(
        ValidationError, match=r"not loaded: address, archived_at, .*; call await session.refresh\(row\)"
    ):
        UserPublic.model_validate(ada)
    session.expunge_all()
    query = sa.select(Pet).options(load_only(Pet.id, Pet.name))  # type: ignore[arg-type]
    [pet] = (await session.exec(query)).scalars()  # type: ignore[call-overload]
    with pytest.raises(ValidationError, match="not loaded: acquired_on"):
        PetPublic.model_validate(pet)
    assert len(statements) == before + 1


def test_a_row_that_was_never_stored_is_refused() -> None:
    with pytest.raises(ValidationError, match="id"):
        PetPublic.model_validate(Pet(name="Rex"))


def test_values_of_another_source_are_accepted() -> None:
    now = datetime.now(UTC)

    shape = UserPublic.model_validate({"id": 1, "name": "Ada", "created_at": now, "updated_at": now, "version": 2})

    assert (shape.email, shape.version) == (None, 2)
