"""What IPython's session has changed is counted, whoever writes it and however it is undone."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, select

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    UserCreate,
    create_pet,
    create_pets,
    create_user,
    delete_pet,
    get_pet,
    list_pets,
    pet_statistics,
    update_pet,
)
from sqlmodel_alembic_async.prompt_changes import _LOCKS, _READS, Changes

Work = Callable[[AsyncSession, int], Awaitable[object]]


@pytest.fixture
def changes(session: AsyncSession) -> Changes:
    return Changes(session.sync_session)


@pytest.fixture
async def pet_id(db: Database) -> int:
    async with db.transaction() as session:
        return (await create_pet(session, PetCreate(name="Rex"))).id


async def add_and_edit(session: AsyncSession, pet_id: int) -> None:
    (await get_pet(session, pet_id)).name = "Max"
    session.add(Pet(name="Leo"))


async def edit_as_before(session: AsyncSession, pet_id: int) -> None:
    pet = await get_pet(session, pet_id)
    pet.name = pet.name


async def mark_for_deletion(session: AsyncSession, pet_id: int) -> None:
    await session.delete(await get_pet(session, pet_id))


async def on_the_connection(session: AsyncSession, pet_id: int) -> None:
    await (await session.connection()).exec_driver_sql("UPDATE pet SET version = version + 1")


@pytest.mark.parametrize(
    ("work", "count"),
    [
        (lambda session, pet_id: create_pet(session, PetCreate(name="Max")), 1),
        (lambda session, pet_id: create_pets(session, [PetCreate(name="Max")] * 2500), 2500),
        (lambda session, pet_id: update_pet(session, pet_id, PetUpdate(color="brown")), 1),
        (lambda session, pet_id: delete_pet(session, pet_id), 1),
        (lambda session, pet_id: session.exec(text("/* all */ UPDATE pet SET version = version + 1")), 1),
        (lambda session, pet_id: session.exec(text("UPDATE pet SET version = 2 WHERE version = 9")), 0),
        (lambda session, pet_id: session.exec(insert(Pet.__table__)), None),  # type: ignore[attr-defined]
        (on_the_connection, 1),
        (add_and_edit, 2),
        (edit_as_before, 0),
        (mark_for_deletion, 1),
        (lambda session, pet_id: list_pets(session), 0),
        (lambda session, pet_id: pet_statistics(session), 0),
        (lambda session, pet_id: session.exec(text("SELECT 1")), 0),
        (lambda session, pet_id: session.exec(text("WITH x AS (SELECT 1) SELECT * FROM x")), 0),
    ],
)
async def test_each_changed_row_counts(
    session: AsyncSession, changes: Changes, pet_id: int, work: Work, count: int | None
) -> None:
    if count is None:
        with pytest.raises(DBAPIError):
            await work(session, pet_id)
        assert changes.have_failed()
        return

    await work(session, pet_id)
    assert changes.count() == count
    assert not changes.have_failed()

    await session.flush()
    assert changes.count() == count

    await session.rollback()
    assert changes.count() == 0


async def test_a_commit_leaves_nothing_to_commit(session: AsyncSession, changes: Changes) -> None:
    await create_pet(session, PetCreate(name="Rex"))
    await session.commit()
    assert changes.count() == 0

    session.add(Pet(name="Max"))
    assert changes.count() == 1


async def test_what_a_savepoint_undoes_does_not_count(session: AsyncSession, changes: Changes) -> None:
    await create_user(session, UserCreate(name="Ada", email="ada@example.com"))
    with pytest.raises(AlreadyExistsError):
        async with session.begin_nested():
            await create_pet(session, PetCreate(name="Rex"))
            await create_user(session, UserCreate(name="Eve", email="ada@example.com"))

    assert (changes.count(), changes.have_failed()) == (1, False)

    async with session.begin_nested():
        await create_pet(session, PetCreate(name="Rex"))
    assert changes.count() == 2


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_statement_that_failed_is_not_forgotten(db: Database, goes_on: bool) -> None:
    async with db.session() as session:
        changes = Changes(session.sync_session)
        with pytest.raises(DBAPIError):
            await session.exec(text("SELECT nonsense"))
        if goes_on:
            with suppress(DBAPIError):  # PostgreSQL refuses further statements.
                await session.exec(text("SELECT 1"))

        assert changes.have_failed()
        await session.rollback()
        assert not changes.have_failed()


async def test_a_flush_that_failed_is_not_forgotten(session: AsyncSession, changes: Changes) -> None:
    session.add(Pet(name=" "))
    with pytest.raises(ValueError, match="must not be blank"):
        await session.flush()

    assert changes.have_failed()


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_locked_rows_are_no_changes(session: AsyncSession, changes: Changes, pet_id: int) -> None:
    await session.exec(select(Pet).where(col(Pet.id) == pet_id).with_for_update())

    assert (changes.count(), changes.takes_locks) == (0, True)


@pytest.mark.parametrize(
    "statement",
    [
        "WITH gone AS (DELETE FROM pet RETURNING id) SELECT * FROM gone",
        "-- a comment\nINSERT INTO pet",
        "SELECT 1 INTO other",
        "INSERT INTO pet SELECT * FROM other FOR UPDATE",
        "CREATE TABLE x (id int)",
        "REPLACE INTO pet",
        "CALL x()",
    ],
)
def test_what_may_write_is_no_read(statement: str) -> None:
    assert not _READS.match(statement)
    assert not _LOCKS.match(statement)


async def test_rows_of_a_statement_for_many_values_count_each(session: AsyncSession, changes: Changes) -> None:
    await session.exec(text("SELECT 1"))
    connection = await session.connection()
    await connection.exec_driver_sql("CREATE TEMPORARY TABLE numbers (x int)")
    before = changes.count()

    await connection.execute(text("INSERT INTO numbers VALUES (:x)"), [{"x": number} for number in range(7)])

    assert changes.count() - before == 7
