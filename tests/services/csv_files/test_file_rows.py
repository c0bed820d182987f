"""What is wrong with a row, apart from what is stored."""

import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    PetCreate,
    create_pet,
    import_pets,
)

from .imports import CHIPS, counts, pets_of, reasons, rejected, rows


async def test_all_that_is_wrong_with_a_row_is_said_once(session: AsyncSession) -> None:
    lines = ("name,sex,birth_date,deceased_on,owner_name", "-,x,2014,,Ada", ",,,,", "Max,,,2020-01-01,", ",,,,Bob")

    report = await rejected(session, *lines)

    assert reasons(report) == [(2, "name", "-"), (2, "sex", "x"), (4, None, None)]
    assert counts(report) == (1, 0, 0, 2)


@pytest.mark.parametrize("line", ["Rex", "Rex,dog,brown"])
@pytest.mark.parametrize("header", ["name,species", "name,external_ref"])
async def test_a_row_with_too_few_or_too_many_cells_is_rejected(session: AsyncSession, header: str, line: str) -> None:
    report = await rejected(session, header, line)

    assert [str(rejection) for rejection in report.rejections] == [
        f"line 2: has {line.count(',') + 1} cells instead of 2: add or remove cells"
    ]


async def test_two_rows_that_claim_one_key_are_both_rejected(session: AsyncSession) -> None:
    lines = (
        "name,external_ref,microchip",
        f"Rex,p1,{CHIPS[0]}",
        "Tom,p1,",
        "Max,p3,",
        "Eve,,276 098 102 345 678",
        "Zoe,bad,1",
        f"Kim,,{CHIPS[1]}",
    )

    report = await import_pets(session, rows(*lines), keep_going=True)

    assert [(rejection.line, rejection.column, rejection.reason[:17]) for rejection in report.rejections[:4]] == [
        (2, "external_ref", "is also on line 3"),
        (2, "microchip", "is also on line 5"),
        (3, "external_ref", "is also on line 2"),
        (5, "microchip", "is also on line 2"),
    ]
    assert counts(report) == (2, 0, 0, 4)
    assert [pet.name for pet in await pets_of(session)] == ["Max", "Kim"]


@pytest.mark.usefixtures("batch")
async def test_rejections_are_in_the_order_of_the_lines(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex", external_ref="p1"))
    lines = ("name,external_ref,acquired_on", "Rex,p1,2020-01-01", "-,,", "Rex", ",p2,", "?,,")

    report = await rejected(session, *lines)

    assert [rejection.line for rejection in report.rejections] == [2, 3, 4, 5, 6]
