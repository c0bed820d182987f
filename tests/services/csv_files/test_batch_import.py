"""Rows and the stored pets that they are about."""

from typing import Any

import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    UserCreate,
    create_pet,
    create_user,
    get_pet,
    get_user,
    import_pets,
    update_pet,
)

from .imports import CHIPS, counts, pets_of, rows


async def test_a_blank_cell_overwrites_nothing(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com", phone="030 12345"))
    await create_pet(
        session, PetCreate(name="Rex", external_ref="p1", breed="Beagle", sex="male", notes="x", owner_id=ada.id)
    )

    report = await import_pets(
        session,
        rows("name,external_ref,breed,sex,notes,owner_email,owner_phone", ",p1,Unknown,,,,", ",,,,,ada@example.com,"),
    )

    assert counts(report) == (0, 0, 2, 0)
    rex = (await pets_of(session))[0]
    assert (rex.name, rex.breed, rex.sex, rex.notes, rex.owner_id) == ("Rex", "Beagle", "male", "x", ada.id)
    assert (await get_user(session, rex.owner_id)).phone == "030 12345"


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("first", [f"Tom,p2,{CHIPS[0]}", f"Tom,p1,{CHIPS[1]}"])
async def test_a_key_that_a_row_gives_up_is_not_there_for_another_row(session: AsyncSession, first: str) -> None:
    await create_pet(session, PetCreate(name="Tom", external_ref="p1", microchip=CHIPS[0]))
    second = "Max,p1," if "p2" in first else f"Max,,{CHIPS[0]}"

    report = await import_pets(session, rows("name,external_ref,microchip", first, second), keep_going=True)

    assert [rejection.line for rejection in report.rejections] == [3]
    assert [pet.name for pet in await pets_of(session)] == ["Tom"]


async def test_an_import_takes_few_statements_and_queries(db: Database, statements: Any, session: AsyncSession) -> None:
    unkeyed = rows("name,species", *["Rex,dog"] * 1500)
    keyed = [f"Rex,p{number},Ada,ada{number % 100}@example.com" for number in range(1000)]

    plain = await statements.taken_by(import_pets(session, unkeyed))
    first = await statements.taken_by(import_pets(session, rows("name,external_ref,owner_name,owner_email", *keyed)))
    again = await statements.taken_by(import_pets(session, rows("name,external_ref,owner_name,owner_email", *keyed)))

    assert plain == 2
    # SQLite does not promise to return ids in the order of the rows: there, each new owner is inserted alone.
    assert first == (100 if db.engine.dialect.name == "sqlite" else 1) + 3
    assert again == 2


async def test_what_the_session_has_not_written_yet_is_matched_and_kept(session: AsyncSession) -> None:
    session.add(Pet(name="Rex", external_ref="p1"))

    report = await import_pets(session, rows("name,external_ref,color", "Rex,p1,brown"))

    assert counts(report) == (0, 1, 0, 0)
    assert (await pets_of(session))[0].color == "brown"


async def test_a_stale_copy_does_not_overwrite_what_was_imported(session: AsyncSession) -> None:
    rex = await create_pet(session, PetCreate(name="Rex", external_ref="p1"))

    await import_pets(session, rows("external_ref,color", "p1,brown"))
    await update_pet(session, rex.id, PetUpdate(name="Max"), expected_version=rex.version)

    assert (rex.name, rex.color, rex.version) == ("Max", "brown", 3)
    assert await get_pet(session, rex.id) is rex
