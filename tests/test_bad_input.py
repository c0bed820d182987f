"""The same bad input gives the same error on every engine, through a shape and through a plain row."""

from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    User,
    UserCreate,
    UserUpdate,
    create_pet,
    create_user,
    describe_microchip,
    find_pet_by_microchip,
    find_user_by_email,
    list_pets,
    list_users,
    transfer_pet,
    update_pet,
    update_user,
)

NAMES = ("", " ", "x" * 101, "a\0b", "\ud800", True, 7, None)
BAD_PETS: list[dict[str, Any]] = [
    *({"name": name} for name in NAMES),
    *({"weight_g": weight} for weight in (-1, 0, True, float("nan"), 1.5, 2**31, 2**63)),
    *({"birth_date": day} for day in (date.today() + timedelta(3), datetime(2020, 1, 1), "soon")),
    *({"sex": sex} for sex in ("UNKNOWN", "m", None, 1)),
    *({"microchip": chip} for chip in ("98514100012345", "999141000123456", "985274877906944")),
    *({"owner_id": owner} for owner in (2**63, 2**31, -1, True, "1")),
    *({"status": status} for status in ("dead", None)),
    {"notes": "a\0b"},
    {"species": "x" * 51},
    {"neutered": 1},
    {"deceased_on": date(2020, 1, 1)},
    {"birth_date_estimated": True},
    {"acquired_on": date(2020, 1, 1)},
]
BAD_USERS: list[dict[str, Any]] = [
    *({"name": name} for name in NAMES),
    *({"email": address} for address in ("ada", "a\0@example.com", "x" * 250 + "@example.com")),
    *({"phone": phone} for phone in ("1234", "1" * 33)),
    {"postal_code": 7302},
    {"address": "x" * 256},
    {"city": "\ud800"},
    {"external_ref": "x" * 65},
]
BAD_BOOKKEEPING: list[dict[str, Any]] = [
    {"created_at": datetime(2020, 1, 1)},
    {"updated_at": datetime(2020, 1, 1)},
    {"archived_at": datetime(2020, 1, 1)},
    {"archived_at": date(2020, 1, 1)},
    {"id": 2**63},
    {"id": True},
    {"id": 0},
]


@pytest.mark.parametrize("bad", BAD_PETS, ids=str)
async def test_a_bad_pet_is_refused(db: Database, bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PetCreate(**{"name": "Rex", **bad})
    async with db.session() as session:
        session.add(Pet(**{"name": "Rex", **bad}))
        with pytest.raises(ValidationError):
            await session.commit()


@pytest.mark.parametrize("bad", BAD_USERS, ids=str)
async def test_a_bad_user_is_refused(db: Database, bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        UserCreate(**{"name": "Ada", **bad})
    with pytest.raises(ValidationError):
        UserUpdate(**bad)
    async with db.session() as session:
        session.add(User(**{"name": "Ada", **bad}))
        with pytest.raises(ValidationError):
            await session.commit()


@pytest.mark.parametrize(
    "bad", [bad for bad in BAD_PETS if "owner_id" not in bad and "acquired_on" not in bad], ids=str
)
async def test_a_bad_change_is_refused(db: Database, bad: dict[str, Any]) -> None:
    async with db.session() as session:
        pet = await create_pet(session, PetCreate(name="Rex"))
        await session.commit()
        if not {"deceased_on", "birth_date_estimated"} & bad.keys():
            with pytest.raises(ValidationError):
                PetUpdate(**bad)
        for field, value in bad.items():
            setattr(pet, field, value)
        with pytest.raises(ValidationError):
            await session.commit()


@pytest.mark.parametrize("bad", BAD_BOOKKEEPING, ids=str)
async def test_bad_bookkeeping_is_refused(db: Database, bad: dict[str, Any]) -> None:
    for table in (User, Pet):
        async with db.session() as session:
            session.add(table(name="Rex", **bad))
            with pytest.raises(ValidationError):
                await session.commit()


async def test_e_mails_that_differ_in_case_are_the_same(db: Database) -> None:
    async with db.transaction() as session:
        await create_user(session, UserCreate(name="Ada", email="ada@example.com"))
        other = await create_user(session, UserCreate(name="Bob"))

    with pytest.raises(AlreadyExistsError):
        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Eve", email="ADA@example.com"))
    with pytest.raises(AlreadyExistsError):
        async with db.transaction() as session:
            await update_user(session, other.id, UserUpdate(email="Ada@Example.com"))
    with pytest.raises(AlreadyExistsError):
        async with db.transaction() as session:
            session.add(User(name="Eve", email="ADA@EXAMPLE.COM"))


async def test_a_row_that_was_refused_leaves_nothing(db: Database) -> None:
    async with db.transaction() as session:
        pet = await create_pet(session, PetCreate(name="Rex"))

    with pytest.raises(ValidationError):
        async with db.transaction() as session:
            await update_pet(session, pet.id, PetUpdate(name="Max"))
            session.add(Pet(name=""))

    async with db.session() as session:
        found = await session.get(Pet, pet.id)
    assert found is not None
    assert (found.name, found.version) == ("Rex", 1)


async def flush(session: AsyncSession, row: User | Pet) -> None:
    session.add(row)
    await session.flush()


@pytest.mark.parametrize(
    ("title", "work"),
    [
        ("email", lambda session: find_user_by_email(session, "x")),
        ("microchip", lambda session: find_pet_by_microchip(session, "x")),
        ("on", lambda session: transfer_pet(session, 1, 1, on="x")),
        ("PetFilters", lambda session: list_pets(session, species="\0")),
        ("UserFilters", lambda session: list_users(session, name_prefix="\0")),
        ("User", lambda session: flush(session, User(name=""))),
        ("Pet", lambda session: flush(session, Pet(name=""))),
    ],
)
async def test_an_error_names_what_is_invalid_as_callers_know_it(
    session: AsyncSession, title: str, work: Callable[[AsyncSession], Awaitable[object]]
) -> None:
    with pytest.raises(ValidationError, match=rf"^1 validation error for {title}\n"):
        await work(session)


def test_an_error_about_a_microchip_number_is_about_the_number() -> None:
    with pytest.raises(ValidationError, match=r"^1 validation error for microchip\n"):
        describe_microchip("x")
