"""The statements on many rows, and on none."""

from datetime import date, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    PetCreate,
    count_pets,
    count_users,
    create_pets,
    get_user,
    import_pets,
)
from sqlmodel_alembic_async.services.statements import many_rows

from ..csv_files.imports import pets_of, rows


def test_the_parameters_of_a_wide_statement_are_made_in_portions() -> None:
    rows: list[dict[str, Any]] = [{"id": number} for number in range(2500)]

    assert [len(portion) for portion in many_rows._portions(rows, 10)] == [1000, 1000, 500]
    assert [len(portion) for portion in many_rows._portions(rows, 22)] == [454] * 5 + [230]
    assert [row for portion in many_rows._portions(rows, 22) for row in portion] == rows
    assert list(many_rows._portions([], 0)) == []


async def test_a_bulk_insert_is_all_or_nothing(db: Database) -> None:
    def rows() -> object:
        yield from (PetCreate(name="Rex") for _ in range(1500))
        yield PetCreate(name="Rex", birth_date=date.today() + timedelta(3))

    with pytest.raises(ValidationError):
        async with db.transaction() as session:
            await create_pets(session, rows())

    async with db.reading() as session:
        assert await count_pets(session) == 0


async def test_a_bulk_insert_of_nothing_inserts_nothing(session: AsyncSession) -> None:
    assert await create_pets(session, []) == 0


async def test_the_longest_notes_of_many_owners_are_imported(session: AsyncSession) -> None:
    notes = "x" * 1_000_000

    await import_pets(session, rows("name,owner_name,owner_notes", *[f"Rex,{n},{notes}" for n in "ABCDEFGHIJKLMNOPQR"]))

    assert await count_users(session) == 18
    assert [(await get_user(session, pet.owner_id)).name for pet in (await pets_of(session))[:2]] == ["A", "B"]


async def test_owners_get_their_ids_also_where_an_insert_returns_nothing(
    db: Database, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As MySQL: MariaDB and the others return what they insert.
    monkeypatch.setattr(db.engine.dialect, "insert_executemany_returning_sort_by_parameter_order", False)

    await import_pets(session, rows("name,owner_name", "Rex,Ada", "Tom,Bob"))

    pets = await pets_of(session)
    assert [(await get_user(session, pet.owner_id)).name for pet in pets] == ["Ada", "Bob"]
