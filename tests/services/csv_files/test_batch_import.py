"""Rows and the stored pets that they are about."""

from datetime import date
from typing import Any

import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    UserCreate,
    archive_pet,
    count_users,
    create_pet,
    create_user,
    find_pet_by_microchip,
    get_pet,
    get_user,
    import_pets,
    update_pet,
)

from .imports import CHIPS, counts, pets_of, rejected, rows


async def test_another_day_of_birth_is_no_estimate_unless_the_row_says_so(session: AsyncSession) -> None:
    for name in ("p1", "p2", "p3"):
        born = date(2014, 1, 1)
        await create_pet(session, PetCreate(name=name, external_ref=name, birth_date=born, birth_date_estimated=True))

    await import_pets(
        session,
        rows("external_ref,birth_date,birth_date_estimated", "p1,2014-05-01,", "p2,2014-01-01,", "p3,2014-05-01,yes"),
    )

    assert [pet.birth_date_estimated for pet in await pets_of(session)] == [False, True, True]


async def test_a_pet_is_matched_by_external_ref_and_then_by_microchip(session: AsyncSession) -> None:
    rex = await create_pet(session, PetCreate(name="Rex", external_ref="p1"))
    tom = await create_pet(session, PetCreate(name="Tom", microchip=CHIPS[0]))

    report = await import_pets(
        session,
        rows(
            "name,external_ref,microchip", f"Rex the Dog,p1,{CHIPS[1]}", "Tom the Cat,p2,276-098-102-345-678", "Rex,,"
        ),
    )

    assert counts(report) == (1, 2, 0, 0)
    assert [(pet.name, pet.external_ref, pet.microchip, pet.version) for pet in await pets_of(session)] == [
        ("Rex the Dog", "p1", CHIPS[1], 2),
        ("Tom the Cat", "p2", CHIPS[0], 2),
        ("Rex", None, None, 1),
    ]
    # What the session held already is read anew.
    assert (rex.name, rex.name_key, tom.external_ref) == ("Rex the Dog", "rex the dog", "p2")


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


async def test_an_archived_pet_is_matched_and_stays_archived(session: AsyncSession) -> None:
    rex = await create_pet(session, PetCreate(name="Rex", microchip=CHIPS[0]))
    await archive_pet(session, rex.id)

    report = await import_pets(session, rows("name,microchip,color", f"Rex,{CHIPS[0]},brown"))

    assert counts(report) == (0, 1, 0, 0)
    assert (rex.color, rex.archived_at is not None) == ("brown", True)


async def test_two_rows_about_one_pet_by_different_keys_are_not_both_taken(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", microchip=CHIPS[0]))

    report = await import_pets(session, rows("name,external_ref,microchip", "A,p1,", f"B,,{CHIPS[0]}"), keep_going=True)

    assert [str(rejection) for rejection in report.rejections] == [
        f"line 3, microchip: '{CHIPS[0]}' matches the same pet as line 2: remove one of the lines"
    ]
    assert [pet.name for pet in await pets_of(session)] == ["A"]


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("first", [f"Tom,p2,{CHIPS[0]}", f"Tom,p1,{CHIPS[1]}"])
async def test_a_key_that_a_row_gives_up_is_not_there_for_another_row(session: AsyncSession, first: str) -> None:
    await create_pet(session, PetCreate(name="Tom", external_ref="p1", microchip=CHIPS[0]))
    second = "Max,p1," if "p2" in first else f"Max,,{CHIPS[0]}"

    report = await import_pets(session, rows("name,external_ref,microchip", first, second), keep_going=True)

    assert [rejection.line for rejection in report.rejections] == [3]
    assert [pet.name for pet in await pets_of(session)] == ["Tom"]


async def test_what_a_row_changes_must_agree_with_what_is_stored(session: AsyncSession) -> None:
    born = date(2020, 1, 1)
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", birth_date=born, status="deceased"))
    await create_pet(session, PetCreate(name="Tom", external_ref="p2"))

    report = await import_pets(
        session,
        rows("external_ref,deceased_on,acquired_on", "p1,2019-01-01,", "p2,2019-01-01,", "p2x,,2019-01-01", "p1x,,"),
        keep_going=True,
    )
    fine = await import_pets(session, rows("external_ref,deceased_on", "p1,2021-01-01"))

    assert [(rejection.line, rejection.reason) for rejection in report.rejections] == [
        (2, "deceased_on must not be before birth_date"),
        (3, "deceased_on needs the status deceased"),
        (4, "must not be blank"),
        (5, "must not be blank"),
    ]
    assert counts(fine) == (0, 1, 0, 0)
    assert await find_pet_by_microchip(session, CHIPS[0]) is None


async def test_an_acquisition_needs_an_owner(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex", external_ref="p1"))

    report = await rejected(session, "name,external_ref,acquired_on", "Rex,p1,2020-01-01", "Tom,,2020-01-01")

    assert [rejection.reason for rejection in report.rejections] == ["acquired_on needs an owner_id"] * 2


async def test_a_year_alone_does_not_replace_a_day_of_that_year(session: AsyncSession) -> None:
    day = date(2014, 5, 1)
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", birth_date=day))
    await create_pet(session, PetCreate(name="Tom", external_ref="p2", birth_date=day))
    await create_pet(session, PetCreate(name="Max", external_ref="p3"))

    report = await import_pets(session, rows("external_ref,birth_date", "p1,2014", "p2,2015", "p3,2014"))

    assert counts(report) == (0, 2, 1, 0)
    assert [(pet.birth_date, pet.birth_date_estimated) for pet in await pets_of(session)] == [
        (day, False),
        (date(2015, 1, 1), True),
        (date(2014, 1, 1), True),
    ]


async def test_the_longest_notes_of_many_owners_are_imported(session: AsyncSession) -> None:
    notes = "x" * 1_000_000

    await import_pets(session, rows("name,owner_name,owner_notes", *[f"Rex,{n},{notes}" for n in "ABCDEFGHIJKLMNOPQR"]))

    assert await count_users(session) == 18
    assert [(await get_user(session, pet.owner_id)).name for pet in (await pets_of(session))[:2]] == ["A", "B"]


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


async def test_owners_get_their_ids_also_where_an_insert_returns_nothing(
    db: Database, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As MySQL: MariaDB and the others return what they insert.
    monkeypatch.setattr(db.engine.dialect, "insert_executemany_returning_sort_by_parameter_order", False)

    await import_pets(session, rows("name,owner_name", "Rex,Ada", "Tom,Bob"))

    pets = await pets_of(session)
    assert [(await get_user(session, pet.owner_id)).name for pet in pets] == ["Ada", "Bob"]


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
