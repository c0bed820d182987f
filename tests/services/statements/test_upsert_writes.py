"""The statements that insert new rows and update stored ones together."""

from typing import Any

import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    PetCreate,
    UpsertReport,
    UserCreate,
    UserUpdate,
    create_user,
    delete_user,
    list_pets,
    list_users,
    update_user,
    upsert_pets,
    upsert_user,
    upsert_users,
)
from sqlmodel_alembic_async.models import User
from sqlmodel_alembic_async.services.statements import upsert_writes
from sqlmodel_alembic_async.services.statements.column_values import new_values


async def test_columns_of_different_rows_are_not_mixed(session: AsyncSession) -> None:
    """One statement writes rows of which each gives other columns."""
    rows: list[dict[str, Any]] = [
        {"city": "Rome"},
        {"phone": "12345"},
        {"email": "eve@example.com", "notes": "n"},
        {},
        {"address": "a", "postal_code": "1"},
    ]
    first = [UserCreate(name=f"User {number}", external_ref=f"S{number}", **row) for number, row in enumerate(rows)]
    await upsert_users(session, first)
    second = [
        UserCreate(name=f"User {number}", external_ref=f"S{number}", **row) for number, row in enumerate(rows[::-1])
    ]
    new = UserCreate(name="User 5", external_ref="S5", city="Oslo")
    assert await upsert_users(session, [*second, new]) == UpsertReport(created=1, updated=3, unchanged=2)

    users = (await list_users(session, order_by="name")).items
    for number, user in enumerate(users[:5]):
        given = {**rows[number], **rows[::-1][number]}
        assert {
            name: value for name, value in user.model_dump(include=set(UserUpdate.model_fields)).items() if value
        } == {
            "name": f"User {number}",
            "external_ref": f"S{number}",
            **given,
        }
    assert (users[5].city, users[5].phone, users[5].version) == ("Oslo", None, 1)


async def test_many_wide_rows_with_long_notes_are_written(db: Database) -> None:
    rows = [
        PetCreate(name=f"Rex {number}", external_ref=f"S{number}", species="dog", breed="Pug", color="red", sex="male")
        for number in range(1100)
    ]
    long = [PetCreate(name="Max", external_ref=f"L{number}", notes=chr(0x1F438) * 600_000) for number in range(3)]

    async with db.transaction() as session:
        assert await upsert_pets(session, [*rows, *long]) == UpsertReport(1103, 0, 0)
    async with db.transaction() as session:
        changed = [row.model_copy(update={"color": "blue"}) for row in rows]
        notes = [row.model_copy(update={"notes": "x" * 900_000}) for row in long]
        assert await upsert_pets(session, [*changed, *notes]) == UpsertReport(0, 1103, 0)
    async with db.reading() as session:
        assert {pet.color for pet in (await list_pets(session, name_prefix="rex", limit=1000)).items} == {"blue"}
        assert {len(pet.notes or "") for pet in (await list_pets(session, name_prefix="max")).items} == {900_000}


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_an_update_takes_no_number_for_an_id(db: Database) -> None:
    async with db.transaction() as session:
        for city in ("Rome", "Oslo", "Bern"):
            await upsert_users(session, [UserCreate(name="Ada", external_ref="S1", city=city)])
            await upsert_user(session, UserCreate(name=city, external_ref="S1"))
        [ada] = (await list_users(session)).items
        new = await create_user(session, UserCreate(name="Bob"))
    assert ada.id is not None
    assert new.id == ada.id + 1


# On SQLite, nobody changes a row while a transaction holds the lock.
@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_a_row_that_changed_since_it_was_read_is_not_written(db: Database) -> None:
    async with db.transaction() as session:
        stale, gone, current = [
            await create_user(session, UserCreate(name=name, external_ref=name))
            for name in ("stale", "gone", "current")
        ]
        taken = await create_user(session, UserCreate(name="taken", external_ref="taken", city="Bern"))
        await update_user(session, stale.id, UserUpdate(city="Rome"))
        await delete_user(session, gone.id)
    rows = [{**row.model_dump(), "city": "Oslo", "version": 2} for row in (stale, current)]
    rows += [{**new_values(UserCreate(name="gone", external_ref="gone")), "id": gone.id, "version": 2}]
    rows += [new_values(UserCreate(name=name, external_ref=name)) for name in ("taken", "new")]

    async with db.transaction() as session:
        written = await upsert_writes.write(session, User, "external_ref", rows, {"city"}, is_retry=False)

    assert written.keys() == {"current", "new"}
    assert written["current"] == current.id
    async with db.reading() as session:
        found = {user.name: (user.id, user.city, user.version) for user in (await list_users(session)).items}
    assert found == {
        "stale": (stale.id, "Rome", 2),
        "current": (current.id, "Oslo", 2),
        "taken": (taken.id, "Bern", 1),
        "new": (written["new"], None, 1),
    }
