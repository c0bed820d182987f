"""The statements on many rows, and on none."""

from datetime import date, timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlmodel import col, select

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    User,
    UserCreate,
    count_pets,
    count_users,
    create_pet,
    create_pets,
    create_user,
    get_user,
    import_pets,
)
from sqlmodel_alembic_async.services.statements import many_rows
from sqlmodel_alembic_async.services.statements.column_values import new_values

from ..csv_files.imports import pets_of, rows


def test_the_parameters_of_a_wide_statement_are_made_in_portions() -> None:
    rows: list[dict[str, Any]] = [{"id": number} for number in range(2500)]

    assert [len(portion) for portion in many_rows.portions(rows, 10)] == [1000, 1000, 500]
    assert [len(portion) for portion in many_rows.portions(rows, 22)] == [454] * 5 + [230]
    assert [row for portion in many_rows.portions(rows, 22) for row in portion] == rows
    assert list(many_rows.portions([], 0)) == []


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


async def test_ids_come_back_in_the_order_of_the_rows(session: AsyncSession) -> None:
    names = [f"User {number * 7 % 1500}" for number in range(1500)]

    ids = await many_rows.insert_returning_ids(session, User, [new_values(UserCreate(name=name)) for name in names])

    by_id = dict((await session.exec(select(User.id, User.name))).all())
    assert [by_id[row_id] for row_id in ids] == names


async def test_rows_are_changed_each_in_its_own_way_and_held_ones_show_it_when_they_are_refreshed(
    session: AsyncSession,
) -> None:
    ada, bob, eve = [await create_user(session, UserCreate(name=name)) for name in ("Ada", "Bob", "Eve")]

    await many_rows.update_each(
        session, User, {ada.id: {"city": "Rome"}, bob.id: {"city": "Oslo"}, eve.id: {"notes": "new"}}
    )
    before = [(row.city, row.notes, row.version) for row in (ada, bob, eve)]
    await many_rows.refresh(session, User, [ada.id, bob.id, eve.id])

    assert before == [(None, None, 1)] * 3
    after = [(row.city, row.notes, row.version) for row in (ada, bob, eve)]
    assert after == [("Rome", None, 2), ("Oslo", None, 2), (None, "new", 2)]
    assert ada.updated_at == eve.updated_at > ada.created_at


async def test_every_row_of_the_conditions_is_changed_in_the_session_too(session: AsyncSession) -> None:
    ada, bob, eve = [
        await create_user(session, UserCreate(name=name, city=city))
        for name, city in (("Ada", "Rome"), ("Bob", "Rome"), ("Eve", "Oslo"))
    ]

    changed = await many_rows.update_all(session, User, {"city": "Bern"}, col(User.city) == "Rome")

    assert changed == 2
    assert [(row.city, row.version) for row in (ada, bob, eve)] == [("Bern", 2), ("Bern", 2), ("Oslo", 1)]


async def test_a_session_knows_which_rows_of_a_table_it_holds(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    rex, tom = [await create_pet(session, PetCreate(name=name)) for name in ("Rex", "Tom")]
    gone = await create_pet(session, PetCreate(name="Max"))
    session.expunge(gone)

    assert many_rows.held_ids(session, User, [ada.id, ada.id + 1]) == {ada.id}
    assert many_rows.held_ids(session, Pet, [rex.id, tom.id, gone.id]) == {rex.id, tom.id}


async def test_rows_are_counted_by_what_is_asked_for(session: AsyncSession) -> None:
    await create_pets(session, [PetCreate(name=name, species="dog") for name in "abc"] + [PetCreate(name="d")])

    assert await many_rows.count(session, Pet, {}) == 4
    assert await many_rows.count(session, Pet, {("species", "eq"): "dog"}) == 3
    assert await many_rows.count(session, Pet, {("species", "is_"): None, ("name_key", "ge"): "e"}) == 0
