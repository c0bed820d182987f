"""What services tell of rows that changed after the snapshot: MariaDB writes newer rows than it reads."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import date

import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetNotFoundError,
    PetUpdate,
    StaleVersionError,
    User,
    UserCreate,
    UserNotFoundError,
    UserUpdate,
    anonymise_user,
    count_pets,
    count_users,
    create_pet,
    create_user,
    delete_pet,
    delete_user,
    get_pet,
    get_user,
    merge_users,
    transfer_pet,
    update_pet,
    update_user,
)

# SQLite refuses to write after an old snapshot, and the transaction is tried again.
pytestmark = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)


@dataclass
class Rows:
    ada: User
    bob: User
    rex: Pet


@pytest.fixture
async def rows(db: Database) -> Rows:
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com", notes="calls at noon"))
        bob = await create_user(session, UserCreate(name="Bob"))
        rex = await create_pet(session, PetCreate(name="Rex", notes="Ada's", owner_id=ada.id))
    return Rows(ada, bob, rex)


@pytest.fixture
async def session(db: Database, rows: Rows) -> AsyncIterator[AsyncSession]:
    """A session whose snapshot is from before any other change, and which holds the rows."""
    async with db.session() as session:
        await count_users(session)
        await count_pets(session)
        for model, row_id in ((User, rows.ada.id), (User, rows.bob.id), (Pet, rows.rex.id)):
            assert await session.get(model, row_id)
        yield session


async def test_a_pet_that_is_gone_is_not_found(db: Database, session: AsyncSession, rows: Rows) -> None:
    async with db.transaction() as other:
        await delete_pet(other, rows.rex.id)

    for work in (
        transfer_pet(session, rows.rex.id, rows.bob.id),
        update_pet(session, rows.rex.id, PetUpdate(name="Max"), expected_version=1),
        update_pet(session, rows.rex.id, PetUpdate(), expected_version=1),
    ):
        with pytest.raises(PetNotFoundError) as caught:
            await work
        assert caught.value.key == rows.rex.id


async def test_a_user_who_is_gone_is_not_found(db: Database, session: AsyncSession, rows: Rows) -> None:
    async with db.transaction() as other:
        await delete_user(other, rows.ada.id, pets="release")

    for work in (
        delete_user(session, rows.ada.id),
        delete_user(session, rows.ada.id, pets="release"),
        anonymise_user(session, rows.ada.id),
        update_user(session, rows.ada.id, UserUpdate(city="Rome"), expected_version=1),
        merge_users(session, rows.bob.id, rows.ada.id),
    ):
        with pytest.raises(UserNotFoundError) as caught:
            await work
        assert caught.value.key == rows.ada.id


async def test_a_row_that_is_new_is_found(db: Database, session: AsyncSession, rows: Rows) -> None:
    async with db.transaction() as other:
        new = await create_user(other, UserCreate(name="Carl"))
        await update_user(other, new.id, UserUpdate(city="Rome"))

    with pytest.raises(StaleVersionError):
        await update_user(session, new.id, UserUpdate(city="Oslo"), expected_version=1)


async def test_a_version_that_was_overtaken_is_stale_even_if_nothing_is_to_be_changed(
    db: Database, session: AsyncSession, rows: Rows
) -> None:
    async with db.transaction() as other:
        await update_pet(other, rows.rex.id, PetUpdate(color="red"))

    for changes in (PetUpdate(), PetUpdate(color="black")):
        with pytest.raises(StaleVersionError):
            await update_pet(session, rows.rex.id, changes, expected_version=1)


async def test_what_another_session_anonymised_does_not_come_back(
    db: Database, session: AsyncSession, rows: Rows
) -> None:
    ada, rex = await get_user(session, rows.ada.id), await get_pet(session, rows.rex.id)
    async with db.transaction() as other:
        await anonymise_user(other, ada.id)

    assert await anonymise_user(session, ada.id) is ada

    assert (ada.name, ada.email, ada.notes, ada.version) == ("Anonymised", None, None, 2)
    assert (rex.notes, rex.version) == (None, 2)


@pytest.mark.parametrize(
    "work",
    [
        lambda session, rows: merge_users(session, rows.bob.id, rows.ada.id),
        lambda session, rows: delete_user(session, rows.ada.id, pets="release"),
        lambda session, rows: anonymise_user(session, rows.ada.id),
    ],
)
async def test_a_pet_that_moved_away_looks_as_it_is(
    db: Database, session: AsyncSession, rows: Rows, work: Callable[[AsyncSession, Rows], Awaitable[object]]
) -> None:
    rex = await get_pet(session, rows.rex.id)
    async with db.transaction() as other:
        carl = await create_user(other, UserCreate(name="Carl"))
        await transfer_pet(other, rex.id, carl.id, on=date(2020, 1, 1))

    await work(session, rows)

    assert (rex.owner_id, rex.acquired_on, rex.notes, rex.version) == (carl.id, date(2020, 1, 1), "Ada's", 2)


async def test_an_update_of_nothing_at_a_version_can_be_read_only(db: Database, rows: Rows) -> None:
    for snapshot in (True, False):
        async with db.reading(snapshot=snapshot) as reader:
            assert (await update_pet(reader, rows.rex.id, PetUpdate(), expected_version=1)).name == "Rex"
