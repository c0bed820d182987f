"""Rows and the stored pets that they are about."""

from datetime import date

import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    PetCreate,
    archive_pet,
    create_pet,
    find_pet_by_microchip,
    import_pets,
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


@pytest.mark.usefixtures("batch")
async def test_a_new_key_is_free_while_another_one_is_replaced(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", microchip=CHIPS[0]))
    lines = ("name,external_ref,microchip", f"Rex,p2,{CHIPS[0]}", "Max,p3,")

    report = await import_pets(session, rows(*lines))

    assert counts(report) == (1, 1, 0, 0)
