"""What rows refer to, loaded on purpose: the pets of users, and the owners of pets."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import InvalidRequestError
from sqlmodel import col

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    User,
    UserCreate,
    UserUpdate,
    archive_pet,
    archive_user,
    create_pet,
    create_pets,
    create_user,
    create_users,
    get_pet,
    get_user,
    list_pets,
    list_users,
    stream_pets,
    stream_users,
    transfer_pet,
    update_pet,
    update_user,
)

from ...conftest import Statements

BLOCKS: list[Callable[[Database], AbstractAsyncContextManager[AsyncSession]]] = [
    lambda db: db.transaction(),
    lambda db: db.reading(),
    lambda db: db.reading(snapshot=True),
    lambda db: db.session(),
]


async def fill(db: Database) -> None:
    """Ada has Rex and the archived Max, Bob is archived and has Leo, Carl has none; Tom has no owner."""
    async with db.transaction() as session:
        ada, bob, _ = [await create_user(session, UserCreate(name=name)) for name in ("Ada", "Bob", "Carl")]
        for name, owner in (("Rex", ada.id), ("Max", ada.id), ("Leo", bob.id), ("Tom", None)):
            pet = await create_pet(session, PetCreate(name=name, owner_id=owner))
            if name == "Max":
                await archive_pet(session, pet.id)
        await archive_user(session, bob.id)


def names_of(pets: list[Pet]) -> list[str]:
    return [pet.name for pet in pets]


@pytest.mark.parametrize("open_session", BLOCKS)
async def test_a_list_of_users_has_their_pets_in_one_statement_more(
    db: Database, statements: Statements, open_session: Callable[[Database], AbstractAsyncContextManager[AsyncSession]]
) -> None:
    await fill(db)
    async with open_session(db) as session:
        assert await statements.taken_by(list_users(session, with_pets=True, archived=None)) == 2

        page = await list_users(session, with_pets=True, archived=None)

    assert {user.name: names_of(user.pets) for user in page.items} == {
        "Ada": ["Rex", "Max"],
        "Bob": ["Leo"],
        "Carl": [],
    }


@pytest.mark.parametrize("open_session", BLOCKS)
async def test_a_list_of_pets_has_their_owners_in_one_statement_more(
    db: Database, statements: Statements, open_session: Callable[[Database], AbstractAsyncContextManager[AsyncSession]]
) -> None:
    await fill(db)
    async with open_session(db) as session:
        assert await statements.taken_by(list_pets(session, with_owner=True, archived=None)) == 2

        page = await list_pets(session, with_owner=True, archived=None)

    owners = {pet.name: pet.owner.name if pet.owner else None for pet in page.items}
    assert owners == {"Rex": "Ada", "Max": "Ada", "Leo": "Bob", "Tom": None}


async def test_one_pet_has_its_owner(db: Database, statements: Statements) -> None:
    await fill(db)
    async with db.reading() as session:
        pets = (await list_pets(session)).items
        for pet, owner, cost in ((pets[1], "Ada", 2), (pets[0], "Bob", 2), (pets[2], None, 1)):
            assert await statements.taken_by(get_pet(session, pet.id, with_owner=True)) == cost
            assert (pet.owner.name if pet.owner else None) == owner


async def test_what_is_not_asked_for_is_not_loaded(session: AsyncSession, statements: Statements) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    await create_pet(session, PetCreate(name="Rex", owner_id=ada.id))
    session.expunge_all()

    assert await statements.taken_by(list_pets(session)) == 1
    with pytest.raises(InvalidRequestError, match="lazy='raise'"):
        _ = (await list_pets(session)).items[0].owner
    with pytest.raises(InvalidRequestError, match="lazy='raise'"):
        _ = (await list_users(session)).items[0].pets
    [user] = (await list_users(session, with_pets=True)).items
    await list_users(session)
    with pytest.raises(InvalidRequestError, match="lazy='raise'"):  # Else it could be out of date.
        _ = user.pets


async def test_an_empty_page_and_pets_without_owners_ask_for_nothing_more(
    session: AsyncSession, statements: Statements
) -> None:
    assert await statements.taken_by(list_users(session, with_pets=True)) == 1
    assert await statements.taken_by(list_pets(session, with_owner=True)) == 1
    await create_pet(session, PetCreate(name="Tom"))

    assert await statements.taken_by(list_pets(session, with_owner=True)) == 1
    assert (await list_pets(session, with_owner=True)).items[0].owner is None


async def test_pages_after_a_cursor_and_streams_have_them_too(db: Database, statements: Statements) -> None:
    async with db.transaction() as session:
        await create_users(session, (UserCreate(name=f"User {number:04}") for number in range(1200)))
        ids = [user.id async for user in stream_users(session)]
        await create_pets(session, (PetCreate(name=f"Pet {number:04}", owner_id=ids[number]) for number in range(1200)))

    async with db.reading() as session:
        users = await list_users(session, limit=1000, with_pets=True)
        before = len(statements)
        users = await list_users(session, limit=1000, with_pets=True, after=users.next)
        assert [names_of(user.pets) for user in users.items] == [[f"Pet {number:04}"] for number in range(1000, 1200)]
        pets = await list_pets(session, limit=150, offset=1000, with_owner=True)
        assert len(statements) - before == 4
        assert [pet.owner.name for pet in pets.items if pet.owner] == [f"User {number}" for number in range(1000, 1150)]
        before = len(statements)
        async for user in stream_users(session, with_pets=True):
            assert len(user.pets) == 1
        async for pet in stream_pets(session, order_by="-id", with_owner=True):
            assert pet.owner is not None
            assert pet.owner.name[-4:] == pet.name[-4:]
        assert len(statements) - before == 8


async def test_what_the_session_holds_already_is_read_again(db: Database) -> None:
    await fill(db)
    async with db.session() as session:
        ada = (await list_users(session, with_pets=True)).items[0]
        rex, max_ = ada.pets
        await get_pet(session, rex.id, with_owner=True)
        await session.commit()
        async with db.transaction() as other:
            await update_user(other, ada.id, UserUpdate(city="Rome"))
            await update_pet(other, rex.id, PetUpdate(species="dog"))
            await transfer_pet(other, max_.id, None)
            await create_pet(other, PetCreate(name="New", owner_id=ada.id))

        assert (await get_pet(session, rex.id, with_owner=True)).owner is ada
        assert ada.city == "Rome"
        assert (await list_users(session, with_pets=True)).items[0] is ada
        assert (ada.pets[0], names_of(ada.pets), rex.species) == (rex, ["Rex", "New"], "dog")
        assert (await get_user(session, ada.id, with_pets=True)).pets == ada.pets
        assert not session.dirty


async def test_a_pending_change_of_an_owner_is_written_first(session: AsyncSession) -> None:
    ada, bob = [await create_user(session, UserCreate(name=name)) for name in ("Ada", "Bob")]
    rex = await create_pet(session, PetCreate(name="Rex", owner_id=ada.id))

    rex.owner_id = bob.id

    assert [names_of(user.pets) for user in (await list_users(session, with_pets=True)).items] == [[], ["Rex"]]
    assert (await get_pet(session, rex.id, with_owner=True)).owner is bob


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_the_pets_of_owners_are_looked_up_by_the_index(db: Database) -> None:
    """Also by a plan that PostgreSQL made when the tables were small, or for other numbers of values."""
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada"))
        await create_pets(session, (PetCreate(name="Rex", owner_id=ada.id) for _ in range(3)))
        await create_pets(session, (PetCreate(name="Tom") for _ in range(20_000)))
    async with db.engine.connect() as connection:
        await connection.exec_driver_sql("ANALYZE pet")
        await connection.exec_driver_sql("SET plan_cache_mode = force_generic_plan")
        await connection.exec_driver_sql(
            "PREPARE q (int[]) AS SELECT p.* FROM unnest($1) AS v(value) JOIN LATERAL"
            " (SELECT * FROM pet WHERE owner_id = v.value OFFSET 0) AS p ON true ORDER BY p.id"
        )
        plan = str((await connection.exec_driver_sql(f"EXPLAIN EXECUTE q (ARRAY[{ada.id}])")).all())
    assert "ix_pet_owner_id" in plan
    assert "Seq Scan" not in plan


async def test_a_user_whose_pets_are_loaded_keeps_other_changes(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    ada.city = "Rome"

    await list_users(session, with_pets=True)

    assert (ada.city, ada.pets) == ("Rome", [])
    stored = sa.select(User.city).where(col(User.id) == ada.id)
    assert (await session.exec(stored)).scalar_one() == "Rome"  # type: ignore[call-overload]
