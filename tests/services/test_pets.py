"""What callers do with pets."""

from datetime import date

import pytest
from pydantic import ValidationError

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    InvalidValueError,
    PetCreate,
    PetDeceasedError,
    PetNotFoundError,
    PetUpdate,
    StaleVersionError,
    UserCreate,
    UserNotFoundError,
    archive_pet,
    count_pets,
    create_pet,
    create_pets,
    create_user,
    delete_pet,
    find_pet_by_microchip,
    get_pet,
    list_pets,
    restore_pet,
    transfer_pet,
    update_pet,
)

from ..conftest import Statements

NOBODY = 2_000_000_000


async def test_each_service_takes_the_statements_it_promises(
    session: AsyncSession, statements: Statements, engine_name: str
) -> None:
    no_returning = engine_name == "mariadb"
    cost = statements.taken_by
    owner = await create_user(session, UserCreate(name="Ada"))

    assert await cost(create_pet(session, PetCreate(name="Rex", owner_id=owner.id, microchip="985141000123456"))) == 1
    pet = (await list_pets(session)).items[0]
    assert await cost(create_pets(session, [PetCreate(name="Max")] * 1000)) == 1
    assert await cost(get_pet(session, pet.id)) == 1
    assert await cost(find_pet_by_microchip(session, "985141000123456")) == 1
    assert await cost(list_pets(session, owner_id=owner.id)) == 1
    assert await cost(count_pets(session)) == 1
    assert await cost(update_pet(session, pet.id, PetUpdate(species="dog"))) == 1 + no_returning
    assert await cost(transfer_pet(session, pet.id, None)) == 1 + no_returning
    assert await cost(transfer_pet(session, pet.id, owner.id)) == 1 + no_returning
    assert await cost(archive_pet(session, pet.id)) == 1 + no_returning
    assert await cost(restore_pet(session, pet.id)) == 1 + no_returning
    assert await cost(delete_pet(session, pet.id)) == 1


async def test_a_created_pet_is_there_with_every_value(db: Database) -> None:
    async with db.transaction() as session:
        owner = await create_user(session, UserCreate(name="Ada"))
        data = PetCreate(
            name="Rex",
            owner_id=owner.id,
            species="dog",
            breed="Retriever, Labrador",
            color="black",
            sex="male",
            neutered=False,
            birth_date=date(2015, 5, 1),
            birth_date_estimated=True,
            weight_g=31_500,
            microchip="985141000123456",
            status="deceased",
            deceased_on=date(2024, 2, 29),
            acquired_on=date(2015, 7, 1),
            notes="good\nboy",
            external_ref="S1",
        )
        created = await create_pet(session, data)

    async with db.reading() as session:
        found = await get_pet(session, created.id)
    assert found.model_dump() == created.model_dump()
    assert data.model_dump().items() <= found.model_dump().items()


@pytest.mark.parametrize("key", [NOBODY, 0, -1, 2**31, 2**63])
async def test_what_does_not_exist_is_not_found(session: AsyncSession, key: int) -> None:
    for work in (
        get_pet(session, key),
        update_pet(session, key, PetUpdate(name="Rex")),
        transfer_pet(session, key, None),
        archive_pet(session, key),
        restore_pet(session, key),
        delete_pet(session, key),
    ):
        with pytest.raises(PetNotFoundError) as caught:
            await work
        assert caught.value.key == key


@pytest.mark.parametrize("key", ["1", 1.0, True])
async def test_an_id_that_is_no_integer_is_refused(session: AsyncSession, key: int) -> None:
    pet = await create_pet(session, PetCreate(name="Rex"))

    for work in (get_pet(session, key), delete_pet(session, key), transfer_pet(session, pet.id, key)):
        with pytest.raises(TypeError):
            await work


async def test_an_owner_who_does_not_exist_is_refused(db: Database) -> None:
    async with db.transaction() as session:
        pet = await create_pet(session, PetCreate(name="Rex"))

    with pytest.raises(UserNotFoundError) as caught:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Max", owner_id=NOBODY))
    assert caught.value.key == NOBODY
    with pytest.raises(UserNotFoundError) as caught:
        async with db.transaction() as session:
            await create_pets(session, [PetCreate(name="Max", owner_id=NOBODY)])
    assert caught.value.key is None
    for owner in (NOBODY, 0, 2**63):
        with pytest.raises(UserNotFoundError) as caught:
            async with db.transaction() as session:
                await transfer_pet(session, pet.id, owner)
        assert caught.value.key == owner


async def test_a_chip_is_unique_and_found_in_any_spelling(db: Database) -> None:
    async with db.transaction() as session:
        pet = await create_pet(session, PetCreate(name="Rex", microchip="985 141-000.123*456"))

    async with db.reading() as session:
        assert (await find_pet_by_microchip(session, "985-141-000-123-456")).id == pet.id
        assert await find_pet_by_microchip(session, "985141000123457") is None
        assert await find_pet_by_microchip(session, " ") is None
        with pytest.raises(ValidationError):
            await find_pet_by_microchip(session, "98514100012345")
    with pytest.raises(AlreadyExistsError) as caught:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Max", microchip="985141000123456"))
    assert caught.value.field == "microchip"


async def test_an_update_changes_only_what_is_given(session: AsyncSession) -> None:
    pet = await create_pet(session, PetCreate(name="Rex", species="dog", breed="Pug"))

    changed = await update_pet(session, pet.id, PetUpdate(name=" Max ", breed=None))

    assert changed is pet
    await session.refresh(pet)
    assert (pet.name, pet.name_key, pet.species, pet.breed, pet.version) == ("Max", "max", "dog", None, 2)


async def test_a_stale_version_is_refused(session: AsyncSession) -> None:
    pet = await create_pet(session, PetCreate(name="Rex"))
    await update_pet(session, pet.id, PetUpdate(name="Max"))

    with pytest.raises(StaleVersionError):
        await update_pet(session, pet.id, PetUpdate(name="Leo"), expected_version=1)


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        (PetUpdate(status="active"), "ck_pet_deceased_on"),
        (PetUpdate(birth_date=date(2022, 1, 1)), "ck_pet_deceased_on_birth_date"),
        (PetUpdate(birth_date_estimated=True), "ck_pet_birth_date_estimated"),
    ],
)
async def test_a_change_that_contradicts_the_row_is_refused(
    session: AsyncSession, changes: PetUpdate, constraint: str
) -> None:
    pet = await create_pet(session, PetCreate(name="Rex", status="deceased", deceased_on=date(2021, 1, 1)))

    with pytest.raises(InvalidValueError) as caught:
        await update_pet(session, pet.id, changes)

    assert caught.value.constraint == constraint


async def test_a_transfer_sets_the_owner_and_the_day(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    pet = await create_pet(session, PetCreate(name="Rex"))

    await transfer_pet(session, pet.id, ada.id, on=date(2020, 2, 2))
    assert (pet.owner_id, pet.acquired_on) == (ada.id, date(2020, 2, 2))
    await transfer_pet(session, pet.id, ada.id)
    assert (pet.owner_id, pet.acquired_on) == (ada.id, date.today())
    await transfer_pet(session, pet.id, None, on=date(2020, 2, 2))
    assert (pet.owner_id, pet.acquired_on, pet.version) == (None, None, 4)
    with pytest.raises(ValidationError):
        await transfer_pet(session, pet.id, ada.id, on="soon")


async def test_a_deceased_pet_is_not_transferred(session: AsyncSession) -> None:
    pet = await create_pet(session, PetCreate(name="Rex", status="deceased"))

    with pytest.raises(PetDeceasedError) as caught:
        await transfer_pet(session, pet.id, None)

    assert caught.value.pet_id == pet.id


async def test_an_archived_pet_is_hidden_until_restored(session: AsyncSession) -> None:
    pet = await create_pet(session, PetCreate(name="Rex"))

    await archive_pet(session, pet.id)
    assert await count_pets(session) == 0
    await restore_pet(session, pet.id)
    assert await count_pets(session) == 1


async def test_a_deleted_pet_is_gone(session: AsyncSession) -> None:
    pet = await create_pet(session, PetCreate(name="Rex"))

    await delete_pet(session, pet.id)

    assert pet not in session
    with pytest.raises(PetNotFoundError):
        await get_pet(session, pet.id)
