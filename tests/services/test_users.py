"""What callers do with users."""

import asyncio
from datetime import date

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    ConflictError,
    Database,
    PetCreate,
    StaleVersionError,
    UserCreate,
    UserHasPetsError,
    UserNotFoundError,
    UserUpdate,
    archive_user,
    count_users,
    create_pet,
    create_user,
    create_users,
    delete_user,
    find_user_by_email,
    get_pet,
    get_user,
    list_users,
    restore_user,
    update_user,
)

from ..conftest import Statements
from ..stress.measures import some_transaction_waits

NOBODY = 2_000_000_000


async def test_each_service_takes_the_statements_it_promises(
    session: AsyncSession, statements: Statements, engine_name: str
) -> None:
    no_returning = engine_name == "mariadb"
    cost = statements.taken_by

    assert await cost(create_user(session, UserCreate(name="Ada", email="ada@example.com"))) == 1
    user = (await list_users(session)).items[0]
    await create_pet(session, PetCreate(name="Rex", owner_id=user.id))
    assert await cost(create_users(session, [UserCreate(name="Bob"), UserCreate(name="Cleo")])) == 1
    assert await cost(get_user(session, user.id)) == 1
    assert await cost(get_user(session, user.id, with_pets=True)) == 2
    assert await cost(find_user_by_email(session, "ada@example.com")) == 1
    assert await cost(list_users(session, name_prefix="a", name_contains="d", limit=1)) == 1
    assert await cost(count_users(session)) == 1
    assert await cost(update_user(session, user.id, UserUpdate(city="Rome"))) == 1 + no_returning
    assert await cost(update_user(session, user.id, UserUpdate(city=None), expected_version=2)) == 1 + no_returning
    assert await cost(update_user(session, user.id, UserUpdate())) == 1
    assert await cost(archive_user(session, user.id)) == 1 + no_returning
    assert await cost(restore_user(session, user.id)) == 1 + no_returning
    assert await cost(delete_user(session, user.id, pets="release")) == 2
    lonely = await create_user(session, UserCreate(name="Dan"))
    assert await cost(delete_user(session, lonely.id)) == 1


async def test_a_created_user_is_there_with_every_value(db: Database) -> None:
    data = UserCreate(
        name="Ada",
        email="Ada@Example.com",
        phone="+44 1234 567",
        address="1 Main St",
        city="London",
        postal_code="00123",
        notes="likes cats\nand dogs",
        external_ref="crm-1",
    )
    async with db.transaction() as session:
        created = await create_user(session, data)

    async with db.reading() as session:
        found = await get_user(session, created.id)
    assert found.model_dump(exclude={"email"}) == created.model_dump(exclude={"email"})
    assert {**data.model_dump(), "email": "ada@example.com"}.items() <= found.model_dump().items()


@pytest.mark.parametrize("key", [NOBODY, 0, -1, 2**31, 2**63, 10**30])
async def test_what_does_not_exist_is_not_found(session: AsyncSession, key: int) -> None:
    for work in (
        get_user(session, key),
        update_user(session, key, UserUpdate(name="Ada")),
        update_user(session, key, UserUpdate(name="Ada"), expected_version=1),
        update_user(session, key, UserUpdate()),
        archive_user(session, key),
        restore_user(session, key),
        delete_user(session, key),
        delete_user(session, key, pets="release"),
    ):
        with pytest.raises(UserNotFoundError) as caught:
            await work
        assert caught.value.key == key


@pytest.mark.parametrize("key", ["1", 1.0, True, None])
async def test_an_id_that_is_no_integer_is_refused(session: AsyncSession, key: int) -> None:
    for work in (get_user(session, key), delete_user(session, key), update_user(session, key, UserUpdate(name="Ada"))):
        with pytest.raises(TypeError):
            await work


@pytest.mark.parametrize("field", ["email", "external_ref"])
async def test_a_second_row_with_a_unique_value_is_refused(db: Database, field: str) -> None:
    value = {"email": "ada@example.com", "external_ref": "S1"}[field]
    async with db.transaction() as session:
        await create_user(session, UserCreate(name="Ada", **{field: value}))
        other = await create_user(session, UserCreate(name="Other"))

    twin = UserCreate(name="Twin", **{field: value.title() if field == "email" else value})
    for attempt in ("create", "bulk", "update"):
        with pytest.raises(AlreadyExistsError) as caught:
            async with db.transaction() as session:
                if attempt == "create":
                    await create_user(session, twin)
                elif attempt == "bulk":
                    await create_users(session, [UserCreate(name="First"), twin])
                else:
                    await update_user(session, other.id, UserUpdate(**{field: value}))
        assert caught.value.field == field
    async with db.reading() as session:
        assert await count_users(session) == 2


async def test_a_user_is_found_by_e_mail_in_any_case(session: AsyncSession) -> None:
    user = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))

    assert await find_user_by_email(session, " ADA@EXAMPLE.COM ") is user
    assert await find_user_by_email(session, "bob@example.com") is None
    assert await find_user_by_email(session, "") is None
    with pytest.raises(ValidationError):
        await find_user_by_email(session, "not an address")


async def test_two_callers_who_change_different_fields_both_win(db: Database) -> None:
    async with db.transaction() as session:
        user = await create_user(session, UserCreate(name="Ada"))
    async with db.session() as first, db.session() as second:
        await get_user(first, user.id)
        await get_user(second, user.id)
        await first.rollback()
        await second.rollback()

        await update_user(first, user.id, UserUpdate(city="Rome"))
        await first.commit()
        seen = await update_user(second, user.id, UserUpdate(phone="12345"))
        await second.commit()

    assert (seen.city, seen.phone, seen.version) == ("Rome", "12345", 3)


async def test_a_stale_version_is_refused(session: AsyncSession) -> None:
    user = await create_user(session, UserCreate(name="Ada"))
    await update_user(session, user.id, UserUpdate(city="Rome"), expected_version=1)

    for stale in (1, 7, 2**63):
        with pytest.raises(StaleVersionError) as caught:
            await update_user(session, user.id, UserUpdate(city="Oslo"), expected_version=stale)
        assert caught.value.expected == stale
        with pytest.raises(StaleVersionError):
            await update_user(session, user.id, UserUpdate(), expected_version=stale)
    for changes in (UserUpdate(city="Oslo"), UserUpdate()):
        with pytest.raises(TypeError, match="expected an int, not bool"):
            await update_user(session, user.id, changes, expected_version=True)
    assert (await update_user(session, user.id, UserUpdate(), expected_version=2)).city == "Rome"


async def test_an_archived_user_is_hidden_until_restored(session: AsyncSession) -> None:
    user = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))

    first = (await archive_user(session, user.id)).archived_at
    assert (await archive_user(session, user.id)).archived_at == first
    assert (await list_users(session)).items == []
    assert await count_users(session) == 0
    assert await count_users(session, archived=True) == 1
    assert await count_users(session, archived=None) == 1
    assert (await get_user(session, user.id)).archived_at == first
    assert await find_user_by_email(session, "ada@example.com") is user

    assert (await restore_user(session, user.id)).archived_at is None
    assert await count_users(session) == 1


async def test_a_user_with_pets_is_not_deleted_and_the_transaction_goes_on(db: Database) -> None:
    async with db.transaction() as session:
        user = await create_user(session, UserCreate(name="Ada"))
        await create_pet(session, PetCreate(name="Rex", owner_id=user.id))
        with pytest.raises(UserHasPetsError) as caught:
            await delete_user(session, user.id)
        await update_user(session, user.id, UserUpdate(city="Rome"))

    assert caught.value.user_id == user.id
    async with db.reading() as session:
        assert (await get_user(session, user.id)).city == "Rome"


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_a_user_who_gets_a_pet_meanwhile_is_not_deleted(db: Database) -> None:
    async with db.transaction() as session:
        user = await create_user(session, UserCreate(name="Ada"))

    async def delete() -> None:
        async with db.transaction() as session:
            await delete_user(session, user.id)

    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex", owner_id=user.id))
        deletion = asyncio.create_task(delete())
        assert await some_transaction_waits(db)
    with pytest.raises(UserHasPetsError) as caught:
        await deletion

    assert caught.value.user_id == user.id


async def test_a_deleted_user_releases_the_pets_if_asked(session: AsyncSession) -> None:
    user = await create_user(session, UserCreate(name="Ada"))
    pet = await create_pet(session, PetCreate(name="Rex", owner_id=user.id, acquired_on=date(2020, 1, 1)))

    await delete_user(session, user.id, pets="release")

    assert (pet.owner_id, pet.acquired_on, pet.version) == (None, None, 2)
    await session.refresh(pet)
    assert (pet.owner_id, pet.acquired_on, pet.version) == (None, None, 2)
    with pytest.raises(UserNotFoundError):
        await get_user(session, user.id)
    assert (await get_pet(session, pet.id)).owner_id is None


async def test_a_wish_for_the_pets_that_nobody_knows_is_refused(session: AsyncSession) -> None:
    with pytest.raises(ValueError, match='"refuse" or "release"'):
        await delete_user(session, 1, pets="drop")


async def test_a_user_that_a_host_table_refers_to_is_not_deleted(empty_url: object) -> None:
    async with Database(empty_url) as db:
        await db.create_tables()
        quote = db.engine.dialect.identifier_preparer.quote
        async with db.transaction() as session:
            user = await create_user(session, UserCreate(name="Ada"))
        async with db.engine.begin() as connection:
            await connection.execute(
                text(
                    "CREATE TABLE clinic (id INTEGER PRIMARY KEY, owner_id INTEGER, CONSTRAINT fk_clinic FOREIGN KEY"
                    f" (owner_id) REFERENCES {quote('user')} (id))"
                )
            )
            await connection.execute(text("INSERT INTO clinic VALUES (1, :id)"), {"id": user.id})

        with pytest.raises(ConflictError, match="another table") as caught:
            async with db.transaction() as session:
                await delete_user(session, user.id)

        assert type(caught.value) is ConflictError
