"""The statements on one row, and the row that the session has afterwards."""

import pytest
import sqlalchemy as sa
from sqlmodel import col

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    User,
    UserCreate,
    count_users,
    create_user,
    create_users,
    delete_pet,
    get_user,
    update_user,
)
from sqlmodel_alembic_async.services.statements import one_row

from ...conftest import Statements


@pytest.mark.parametrize("data", [{"name": "Ada"}, PetCreate(name="Rex"), User(name="Ada")])
async def test_only_shapes_are_accepted(session: AsyncSession, data: UserCreate) -> None:
    with pytest.raises(TypeError, match="expected UserCreate"):
        await create_user(session, data)
    with pytest.raises(TypeError, match="expected UserCreate"):
        await create_users(session, [data])
    with pytest.raises(TypeError, match="expected UserUpdate"):
        await update_user(session, 1, data)


@pytest.mark.parametrize("engine_name", ["mariadb"], indirect=True)
async def test_where_an_insert_returns_nothing_the_row_is_read(
    db: Database, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session.connection()
    monkeypatch.setattr(db.engine.dialect, "insert_returning", False)

    user = await create_user(session, UserCreate(name=" Ada ", email="ADA@example.com"))

    assert (user.name, user.email, user.version) == ("Ada", "ada@example.com", 1)
    assert await get_user(session, user.id) is user


async def test_a_rollback_takes_a_created_row_out_of_the_session(session: AsyncSession) -> None:
    savepoint = await session.begin_nested()
    lost = await create_user(session, UserCreate(name="Lost"))
    async with session.begin_nested():
        inner = await create_user(session, UserCreate(name="Lost within"))
    await savepoint.rollback()

    assert lost not in session
    assert inner not in session
    session.add(User(name="Ada"))  # SQLite gives it the lost one's id.
    await session.flush()
    kept = await create_user(session, UserCreate(name="Bob"))
    await session.rollback()
    assert kept not in session
    assert await count_users(session) == 0


async def test_a_key_that_no_row_can_have_asks_the_database_nothing(
    session: AsyncSession, statements: Statements
) -> None:
    for key in (0, -1, 2**31, 2**63):
        assert await statements.taken_by(one_row.fetch_by_id(session, User, key)) == 0
        assert await one_row.fetch_by_id(session, User, key) is None
        assert await one_row.update(session, User, key, {"city": "Rome"}) is None
        assert await one_row.delete(session, User, key) is False

    assert len(statements) == 0


async def test_a_row_is_changed_only_where_it_satisfies_the_conditions(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", city="Oslo"))

    refused = await one_row.update(session, User, ada.id, {"city": "Rome"}, col(User.city) == "Bern")
    changed = await one_row.update(session, User, ada.id, {"city": "Paris"}, col(User.city) == "Oslo")

    assert refused is None
    assert changed is ada
    assert (ada.city, ada.version) == ("Paris", 2)


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_deleted_row_leaves_the_session_too(session: AsyncSession, is_held: bool) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    ada_id = ada.id
    if not is_held:
        session.expunge(ada)

    assert await one_row.delete(session, User, ada_id, col(User.city) == "Rome") is False
    assert await one_row.delete(session, User, ada_id) is True
    assert await one_row.delete(session, User, ada_id) is False

    assert ada not in session
    assert await one_row.fetch_by_id(session, User, ada_id) is None


async def test_a_deleted_row_that_was_not_flushed_before_leaves_the_session(session: AsyncSession) -> None:
    pet = Pet(id=77, name="Rex")
    session.add(pet)

    await delete_pet(session, 77)

    assert pet not in session
    assert sa.inspect(pet).deleted
