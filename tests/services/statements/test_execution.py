"""Statements: what is pending is flushed before them, and what fails ends its transaction."""

import subprocess
import sys

import pytest
from sqlalchemy import event
from sqlalchemy.exc import PendingRollbackError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession as PlainSession

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    DatabaseError,
    DatabaseUnavailableError,
    Pet,
    User,
    UserCreate,
    UserUpdate,
    count_users,
    create_user,
    create_users,
    get_user,
    list_users,
    update_user,
)
from sqlmodel_alembic_async.services.statements import execution


async def test_a_read_sees_what_others_changed(db: Database) -> None:
    async with db.session() as first, db.session() as second:
        user = await create_user(first, UserCreate(name="Ada"))
        await first.commit()
        async with second.begin():
            await update_user(second, user.id, UserUpdate(name="Eve"))

        assert (await get_user(first, user.id)).name == "Eve"
        assert user.name == "Eve"


@pytest.mark.parametrize("autoflush", [True, False])
async def test_what_is_pending_in_the_session_is_not_overwritten_by_a_read(db: Database, autoflush: bool) -> None:
    async with db.transaction() as session:
        user_id = (await create_user(session, UserCreate(name="Ada"))).id

    async with AsyncSession(db.engine, autoflush=autoflush) as session:
        user = await get_user(session, user_id)
        user.name = "Eve"
        await list_users(session)
        user.city = "Rome"
        await update_user(session, user_id, UserUpdate(phone="12345"))
        await session.commit()

    async with db.reading() as session:
        found = await get_user(session, user_id)
    assert (found.name, found.city, found.phone) == ("Eve", "Rome", "12345")


@pytest.mark.parametrize("autoflush", [True, False])
async def test_what_is_pending_in_the_session_is_read(db: Database, autoflush: bool) -> None:
    async with AsyncSession(db.engine, autoflush=autoflush) as session:
        session.add(User(name="Ada"))
        assert [user.name for user in (await list_users(session)).items] == ["Ada"]
        user = (await list_users(session)).items[0]
        await session.commit()

        await session.delete(user)
        assert (await list_users(session)).items == []
        await session.rollback()

        await session.refresh(user)
        user.name = "Eve"
        assert await count_users(session, name_prefix="eve") == 1


@pytest.mark.parametrize("savepoint", [True, False])
async def test_a_transaction_that_a_flush_ended_is_not_ended_again(db: Database, savepoint: bool) -> None:
    async with db.transaction() as session:
        await create_user(session, UserCreate(name="Ada", email="ada@example.com"))

    async with PlainSession(db.engine) as session:
        nested = await session.begin_nested() if savepoint else None
        session.add(User(name="Eve", email="ada@example.com"))
        with pytest.raises(AlreadyExistsError):
            await count_users(session)  # SQLAlchemy remarks on a second end, and here remarks are errors.
        with pytest.raises(DatabaseError, match="begin_nested"):
            await count_users(session)
        await (nested or session).rollback()
        assert await count_users(session) == 1


async def test_after_a_failed_call_the_transaction_is_over_on_every_engine(db: Database) -> None:
    async with db.transaction() as session:
        await create_user(session, UserCreate(name="Ada", email="ada@example.com"))

    with pytest.raises(DatabaseError, match="begin_nested") as caught:
        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Lost"))
            with pytest.raises(AlreadyExistsError):
                await create_users(session, [UserCreate(name="Twin", email="ada@example.com")])
            with pytest.raises(DatabaseError, match="begin_nested"):
                await count_users(session)

    assert type(caught.value) is DatabaseError
    async with db.reading() as session:
        assert await count_users(session) == 1


@pytest.mark.parametrize("bulk", [True, False])
async def test_a_savepoint_keeps_the_transaction_alive(db: Database, bulk: bool) -> None:
    twin = UserCreate(name="Twin", email="ada@example.com")
    async with db.transaction() as session:
        await create_user(session, UserCreate(name="Ada", email="ada@example.com"))
        with pytest.raises(AlreadyExistsError):
            async with session.begin_nested():
                await (create_users(session, [twin]) if bulk else create_user(session, twin))
        await create_user(session, UserCreate(name="Bob"))

    async with db.reading() as session:
        assert [user.name for user in (await list_users(session)).items] == ["Ada", "Bob"]


async def test_after_an_operating_system_error_the_transaction_is_over(db: Database) -> None:
    # Drivers may raise the errors of their sockets as they are. The listener stands for such a socket.
    def fail(*arguments: object) -> None:
        raise ConnectionResetError

    async with db.session() as session:
        await create_user(session, UserCreate(name="Lost"))
        event.listen(db.engine.sync_engine, "before_cursor_execute", fail)
        with pytest.raises(DatabaseUnavailableError):
            await count_users(session)
        event.remove(db.engine.sync_engine, "before_cursor_execute", fail)

        with pytest.raises(PendingRollbackError):
            await session.commit()

    async with db.reading() as session:
        assert await count_users(session) == 0


WRONG_MODEL = """
import asyncio
from sqlmodel import Field, Relationship, SQLModel
from sqlalchemy.exc import InvalidRequestError
from sqlmodel_alembic_async import Database, list_pets

class Visit(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    nonsense: "Nonsense" = Relationship()

async def main():
    async with Database("sqlite://") as db, db.reading() as session:
        try:
            await list_pets(session)
        except InvalidRequestError as error:
            print(error)

asyncio.run(main())
"""


def test_a_wrong_model_of_the_application_is_named() -> None:
    ended = subprocess.run([sys.executable, "-c", WRONG_MODEL], capture_output=True, text=True)

    assert "'Nonsense'" in ended.stdout, ended.stderr


@pytest.mark.parametrize("engine_name", ["mariadb"], indirect=True)
@pytest.mark.parametrize("name", ["mysql", "mariadb"])
async def test_what_an_update_sees_is_read_under_a_lock_by_each_name_of_mariadb(db: Database, name: str) -> None:
    async with Database(db.url.set(drivername=f"{name}+asyncmy")) as named, named.session() as session:
        query = execution.as_written(session, Pet, select(Pet))

        assert "LOCK IN SHARE MODE" in str(query.compile(dialect=named.engine.dialect))
