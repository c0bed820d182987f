"""What is personal goes, what is counted stays."""

from datetime import date
from typing import Any

import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    PetCreate,
    UserCreate,
    UserNotFoundError,
    UserUpdate,
    anonymise_user,
    archive_pet,
    archive_user,
    count_pets,
    count_users,
    create_pet,
    create_user,
    delete_user,
    find_user_by_email,
    get_pet,
    get_user,
    list_users,
    transfer_pet,
    update_user,
)

from ..conftest import Statements

NOBODY = 2_000_000_000
ADA: dict[str, Any] = {
    "name": "Ada Byron",
    "email": "ada@example.com",
    "phone": "+44 1234",
    "address": "1 Main St",
    "city": "London",
    "postal_code": "00123",
    "notes": "Calls\nat noon",
    "external_ref": "S1",
}
REX: dict[str, Any] = {
    "name": "Rex",
    "species": "dog",
    "breed": "Pug",
    "color": "black",
    "sex": "male",
    "neutered": False,
    "birth_date": date(2015, 5, 1),
    "birth_date_estimated": True,
    "weight_g": 31_500,
    "microchip": "985141000123456",
    "status": "deceased",
    "deceased_on": date(2024, 2, 29),
    "acquired_on": date(2015, 7, 1),
    "notes": "Ada's favourite",
    "external_ref": "S1",
}


async def test_everything_personal_goes_and_the_row_stays(db: Database) -> None:
    assert ADA.keys() == UserCreate.model_fields.keys()
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(**ADA))
        other = await create_user(session, UserCreate(**ADA | {"email": None, "external_ref": None}))

    async with db.transaction() as session:
        returned = await anonymise_user(session, ada.id)

    async with db.reading() as session:
        found = await get_user(session, ada.id)
        assert (await get_user(session, other.id)).model_dump() == other.model_dump()
    assert returned.model_dump() == found.model_dump()
    assert found.model_dump() == dict.fromkeys(ADA) | {
        "id": ada.id,
        "name": "Anonymised",
        "name_key": "anonymised",
        "version": 2,
        "archived_at": None,
        "created_at": ada.created_at,
        "updated_at": found.updated_at,
    }
    assert found.updated_at > ada.updated_at


async def test_the_pets_stay_with_all_that_is_theirs_but_no_free_text(db: Database) -> None:
    assert REX.keys() | {"owner_id"} == PetCreate.model_fields.keys()
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(**ADA))
        rex = await create_pet(session, PetCreate(**REX, owner_id=ada.id))
        plain = await create_pet(session, PetCreate(name="Max", owner_id=ada.id))
        hidden = await create_pet(session, PetCreate(name="Leo", owner_id=ada.id, notes="Ada's, too"))
        await archive_pet(session, hidden.id)
        other = await create_pet(session, PetCreate(name="Mia", notes="not Ada's", external_ref="S2"))

    async with db.transaction() as session:
        await anonymise_user(session, ada.id)

    async with db.reading() as session:
        found = await get_pet(session, rex.id)
        assert found.model_dump() == rex.model_dump() | {
            "notes": None,
            "external_ref": None,
            "version": 2,
            "updated_at": found.updated_at,
        }
        assert found.updated_at > rex.updated_at
        assert (await get_pet(session, hidden.id)).notes is None
        for pet in (plain, other):
            assert (await get_pet(session, pet.id)).model_dump() == pet.model_dump()


@pytest.mark.parametrize("is_archived", [True, False])
async def test_the_user_and_the_pets_are_counted_as_before(session: AsyncSession, is_archived: bool) -> None:
    ada = await create_user(session, UserCreate(**ADA))
    await create_pet(session, PetCreate(**REX, owner_id=ada.id))
    if is_archived:
        await archive_user(session, ada.id)
    before = ada.archived_at

    await anonymise_user(session, ada.id)

    assert ada.archived_at == before
    assert await count_users(session, archived=is_archived) == await count_users(session, archived=None) == 1
    assert await count_pets(session, owner_id=ada.id, species="dog", status="deceased") == 1


async def test_nothing_personal_finds_the_user_and_its_unique_values_are_free(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(**ADA))

    await anonymise_user(session, ada.id)

    assert await find_user_by_email(session, "ada@example.com") is None
    assert (await list_users(session, name_contains="ada")).items == []
    again = await create_user(session, UserCreate(**ADA))
    await anonymise_user(session, again.id)
    assert [user.id for user in (await list_users(session, name_prefix="anonymised")).items] == [ada.id, again.id]
    await delete_user(session, ada.id)


async def test_a_second_time_changes_only_what_came_since(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(**ADA))
    rex = await create_pet(session, PetCreate(name="Rex", notes="good boy", owner_id=ada.id))
    await anonymise_user(session, ada.id)
    before = ada.model_dump(), rex.model_dump()

    assert await anonymise_user(session, ada.id) is ada
    assert (ada.model_dump(), rex.model_dump()) == before
    await update_user(session, ada.id, UserUpdate(phone="12345"))
    mia = await create_pet(session, PetCreate(name="Mia", notes="new", owner_id=ada.id))
    await anonymise_user(session, ada.id)

    assert (ada.phone, ada.version) == (None, 4)
    assert (mia.notes, mia.version, rex.version) == (None, 2, 2)


async def test_it_takes_the_statements_it_promises(
    session: AsyncSession, statements: Statements, engine_name: str
) -> None:
    ada = (await create_user(session, UserCreate(**ADA))).id
    await create_pet(session, PetCreate(**REX, owner_id=ada))

    assert await statements.taken_by(anonymise_user(session, ada)) == 2 + (engine_name == "mariadb")
    assert await statements.taken_by(anonymise_user(session, ada)) == 3


@pytest.mark.parametrize("key", [NOBODY, 0, -1, 2**31, 2**63])
async def test_a_user_who_does_not_exist_is_not_found(session: AsyncSession, key: int) -> None:
    with pytest.raises(UserNotFoundError) as caught:
        await anonymise_user(session, key)

    assert caught.value.key == key


@pytest.mark.parametrize("key", ["1", 1.0, True, None])
async def test_an_id_that_is_no_integer_is_refused(session: AsyncSession, key: int) -> None:
    with pytest.raises(TypeError, match="expected an int"):
        await anonymise_user(session, key)


async def test_what_the_session_holds_forgets_too(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(**ADA))
    rex = await create_pet(session, PetCreate(**REX, owner_id=ada.id))
    ada.notes = "still to be written"
    rex.notes = "this, too"

    await anonymise_user(session, ada.id)

    assert (ada.name, ada.notes, rex.notes, rex.microchip) == ("Anonymised", None, None, "985141000123456")
    rex.weight_g = 4200
    await session.commit()
    assert (ada.version, rex.version) == (3, 4)


async def test_a_held_pet_that_moved_away_meanwhile_keeps_its_notes(db: Database) -> None:
    async with db.session() as session:
        ada = await create_user(session, UserCreate(name="Ada"))
        bob = await create_user(session, UserCreate(name="Bob"))
        rex = await create_pet(session, PetCreate(name="Rex", notes="good boy", owner_id=ada.id))
        await session.commit()
        async with db.transaction() as other:
            await transfer_pet(other, rex.id, bob.id)

        await anonymise_user(session, ada.id)

        assert (rex.notes, rex.owner_id, rex.version) == ("good boy", bob.id, 2)


async def test_a_rollback_takes_an_erasure_back(db: Database) -> None:
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(**ADA))
        rex = await create_pet(session, PetCreate(**REX, owner_id=ada.id))

    async with db.session() as session:
        await anonymise_user(session, ada.id)
        await session.rollback()

    async with db.reading() as session:
        assert (await get_user(session, ada.id)).model_dump() == ada.model_dump()
        assert (await get_pet(session, rex.id)).model_dump() == rex.model_dump()
