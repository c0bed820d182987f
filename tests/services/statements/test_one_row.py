"""The statements on one row, and the row that the session has afterwards."""

import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    PetCreate,
    User,
    UserCreate,
    count_users,
    create_user,
    create_users,
    get_user,
    update_user,
)


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
