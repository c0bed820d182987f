"""Of two values that are taken, every engine names the same one, whatever the statement."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    User,
    UserCreate,
    UserUpdate,
    create_pet,
    create_pets,
    create_user,
    create_users,
    get_pet,
    get_user,
    migrations,
    update_pet,
    update_user,
)

USER = {"email": "ada@example.com", "external_ref": "S1"}
PET = {"external_ref": "S1", "microchip": "985141000123456"}


@pytest.fixture(params=["migrated", "created"])
async def own_db(empty_url: URL, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with Database(empty_url) as database:
        await (migrations.upgrade(database=database) if request.param == "migrated" else database.create_tables())
        yield database


async def add(session: Any, row: User | Pet) -> None:
    session.add(row)
    await session.flush()


async def edit(session: Any, row: User | Pet, values: dict[str, str]) -> None:
    row.sqlmodel_update(values)
    await session.flush()


async def test_one_field_is_named(own_db: Database) -> None:
    async with own_db.transaction() as session:
        await create_user(session, UserCreate(name="Ada", **USER))
        await create_pet(session, PetCreate(name="Rex", **PET))
        bob = (await create_user(session, UserCreate(name="Bob"))).id
        max_ = (await create_pet(session, PetCreate(name="Max"))).id
    works: list[tuple[str, Callable[[Any], Awaitable[object]]]] = [
        ("email", lambda session: create_user(session, UserCreate(name="Eve", **USER))),
        ("email", lambda session: create_users(session, [UserCreate(name="Eve"), UserCreate(name="Eve", **USER)])),
        ("email", lambda session: update_user(session, bob, UserUpdate(**USER))),
        ("email", lambda session: add(session, User(name="Eve", **USER))),
        ("external_ref", lambda session: create_pet(session, PetCreate(name="Leo", **PET))),
        ("external_ref", lambda session: create_pets(session, [PetCreate(name="Leo", **PET)])),
        ("external_ref", lambda session: update_pet(session, max_, PetUpdate(**PET))),
        ("external_ref", lambda session: add(session, Pet(name="Leo", **PET))),
    ]

    async def edit_bob(session: Any) -> None:
        await edit(session, await get_user(session, bob), USER)

    async def edit_max(session: Any) -> None:
        await edit(session, await get_pet(session, max_), PET)

    for field, work in [*works, ("email", edit_bob), ("external_ref", edit_max)]:
        with pytest.raises(AlreadyExistsError) as caught:
            async with own_db.transaction() as session:
                await work(session)
        assert caught.value.field == field
