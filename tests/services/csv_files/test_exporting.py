"""Exports: what is written, and that an import reads it."""

import asyncio
import io
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    User,
    UserCreate,
    archive_pet,
    create_pet,
    create_pets,
    create_user,
    export_pets,
    import_pets,
)

from .exports import HEADER, exported
from .imports import counts, pets_of, users_of


async def test_a_pet_and_its_owner_are_one_row_of_the_native_format(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com", postal_code="07302"))
    pet = PetCreate(
        name="Rex",
        owner_id=ada.id,
        species="dog",
        neutered=True,
        birth_date=date(2014, 1, 1),
        birth_date_estimated=True,
        weight_g=9500,
        notes='one\r\n"two", three',
    )
    await create_pet(session, pet)
    await create_pet(session, PetCreate(name="Tom"))
    file = io.StringIO(newline="")

    assert await export_pets(session, file) == 2

    assert file.getvalue() == (
        HEADER + 'Rex,dog,,,unknown,true,2014-01-01,true,9500,,active,,,"one\r\n""two"", three",,'
        "Ada,ada@example.com,,,,07302,,\r\n"
        "Tom,,,,unknown,,,false,,,active,,,,,,,,,,,,\r\n"
    )


async def test_an_export_takes_the_filters_of_a_list(session: AsyncSession) -> None:
    rex = await create_pet(session, PetCreate(name="Rex", species="dog"))
    await create_pet(session, PetCreate(name="Tom", species="cat"))
    await archive_pet(session, rex.id)

    assert [row["name"] for row in await exported(session)] == ["Tom"]
    assert [row["name"] for row in await exported(session, archived=None)] == ["Rex", "Tom"]
    assert [row["name"] for row in await exported(session, species="DOG", archived=True)] == ["Rex"]
    with pytest.raises(TypeError, match="unknown filter"):
        await exported(session, kind="dog")


async def test_an_export_streams_in_the_order_of_the_ids(db: Database, session: AsyncSession) -> None:
    names = [f"Rex {number % 7} {number}" for number in range(2500)]
    await create_pets(session, (PetCreate(name=name) for name in names))

    assert [row["name"] for row in await exported(session)] == names


async def test_what_the_session_has_not_written_yet_is_exported(session: AsyncSession) -> None:
    session.add(Pet(name="Rex"))

    assert [row["name"] for row in await exported(session)] == ["Rex"]


async def test_a_session_that_only_reads_can_export(db: Database) -> None:
    for options in ({}, {"snapshot": True}):
        async with db.reading(**options) as session:
            assert await exported(session) == []


_MARKS = st.sampled_from(["", "'", "''", "=", "'=", "-", "＋", "\ufeff", "\u200b"])  # noqa: RUF001
_TEXTS = (
    st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from("=+-@'\"\t\r\n,;＝\xa0"),  # noqa: RUF001
        min_size=1,
        max_size=12,
    )
    | st.builds(
        "{}{}".format, _MARKS, st.sampled_from(["Unknown", "N/A", "99", "-", "x", "M", "yes", "1999", "'", "?"])
    )
    | st.sampled_from(["=1+1", "one\r\ntwo", "one\rtwo\n\nthree", "e\u0301", "ǅ", "İ", "ß", "'", "''", "true"])
)


_DAYS = st.dates(date(1, 1, 1), date(2026, 1, 1))


def _valid(shape: type[Any], **values: Any) -> Any:
    """Return a shape with those of the values that it takes."""
    while True:
        try:
            return shape(**values)
        except ValidationError as error:
            places = [detail["loc"] for detail in error.errors()]
            refused = {place[0] for place in places if place} or {"deceased_on", "birth_date_estimated", "acquired_on"}
            values = {"name": "Rex"} | {name: value for name, value in values.items() if name not in refused}


_OWNERS = st.fixed_dictionaries(
    {"name": _TEXTS},
    optional={
        **dict.fromkeys(("address", "city", "postal_code", "notes"), _TEXTS),
        "phone": st.builds("{}030 12345".format, _MARKS),
        "email": _MARKS,
        "external_ref": _MARKS,
    },
)


_PETS = st.fixed_dictionaries(
    {"name": _TEXTS, "owner": st.none() | st.integers(0, 3)},
    optional={
        **dict.fromkeys(("species", "breed", "color", "notes"), _TEXTS),
        **dict.fromkeys(("birth_date", "deceased_on", "acquired_on"), _DAYS),
        "sex": st.sampled_from(["male", "female", "unknown"]),
        "neutered": st.booleans(),
        "birth_date_estimated": st.booleans(),
        "weight_g": st.integers(1, 2**31 - 1),
        "microchip": st.sampled_from(["00000000{}", "A-0000000{}", "27609810234567{}"]),
        "status": st.sampled_from(["active", "missing", "deceased"]),
        "external_ref": _MARKS,
    },
)


def _owner(number: int, values: dict[str, Any]) -> UserCreate:
    endings = {"email": f"{number}@example.com", "external_ref": f"{number}"}
    keys = {name: values[name] + ending for name, ending in endings.items() if name in values}
    return cast(UserCreate, _valid(UserCreate, **values | keys))


def _pet(number: int, values: dict[str, Any]) -> PetCreate:
    keys = {"microchip": values["microchip"].format(number)} if "microchip" in values else {}
    keys |= {"external_ref": f"{values['external_ref']}{number}"} if "external_ref" in values else {}
    return cast(PetCreate, _valid(PetCreate, **values | keys))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(owners=[{"name": "N/A"}], pets=[{"name": "99", "owner": 0}])
@example(
    owners=[], pets=[{"name": "Rex", "owner": None, "breed": text} for text in ("Unknown", "-", "=1+1", "'", "''?")]
)
@given(owners=st.lists(_OWNERS, max_size=4), pets=st.lists(_PETS, max_size=6))
def test_an_export_imported_elsewhere_is_exported_as_the_same_bytes(
    migrated_url: URL, tmp_path: Path, owners: list[dict[str, Any]], pets: list[dict[str, Any]]
) -> None:
    async def go() -> None:
        async with Database(migrated_url) as db:
            async with db.transaction() as session:
                ids = [(await create_user(session, _owner(number, values))).id for number, values in enumerate(owners)]
                for number, values in enumerate(pets):
                    owner = values["owner"]
                    owner_id = None if owner is None or owner >= len(ids) else ids[owner]
                    given = {name: value for name, value in values.items() if name != "owner"}
                    await create_pet(session, _pet(number, given | {"owner_id": owner_id}))
            async with db.reading() as session:
                assert await export_pets(session, tmp_path / "first.csv") == len(pets)
            first = await everything(db)
            await empty(db)
            async with db.transaction() as session:
                report = await import_pets(session, tmp_path / "first.csv")
            assert counts(report) == (len(pets), 0, 0, 0)
            async with db.reading() as session:
                await export_pets(session, tmp_path / "second.csv")
            assert await everything(db) == first
            await empty(db)

    asyncio.run(go())
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


async def everything(db: Database) -> list[Any]:
    """Return all that a file carries, without the owners who have no pet."""
    kept = {"id", "created_at", "updated_at", "owner_id"}
    async with db.reading() as session:
        owners = {user.id: user.model_dump(exclude=kept) for user in await users_of(session)}
        return [(pet.model_dump(exclude=kept), owners.get(pet.owner_id)) for pet in await pets_of(session)]


async def empty(db: Database) -> None:
    async with db.engine.begin() as connection:
        for model in (Pet, User):
            await connection.execute(model.__table__.delete())
