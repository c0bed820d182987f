"""Who reads what is not loaded is told how to load it: by the same error on every engine."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import InvalidRequestError, MissingGreenlet, SQLAlchemyError, UnboundExecutionError
from sqlalchemy.orm import lazyload
from sqlalchemy.orm.exc import DetachedInstanceError
from sqlmodel import Session, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession as HostSession

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    User,
    UserCreate,
    create_pet,
    create_user,
    get_user,
)

CURE = r"^this User is expired, .*: read it again with `await session\.refresh\(user\)`"


@pytest.fixture
async def user(session: AsyncSession) -> User:
    user = await create_user(session, UserCreate(name="Ada"))
    await create_pet(session, PetCreate(name="Rex", owner_id=user.id))
    await session.commit()
    return user


@pytest.mark.parametrize("read", [lambda user: user.name, lambda user: user.id, lambda user: user.notes])
async def test_a_row_that_a_rollback_expired_names_the_cure(
    session: AsyncSession, user: User, read: Callable[[User], Any]
) -> None:
    user = await get_user(session, user.id)
    await session.rollback()

    with pytest.raises(MissingGreenlet, match=CURE):
        read(user)

    await session.refresh(user)
    assert user.name == "Ada"


async def test_reading_an_expired_row_does_no_harm_to_a_pending_change(session: AsyncSession, user: User) -> None:
    session.expire(user)
    user.name = "Eve"
    with pytest.raises(MissingGreenlet, match=CURE):
        _ = user.city

    await session.flush()

    await session.refresh(user)
    assert (user.name, user.city) == ("Eve", None)


def test_outside_of_an_event_loop_the_cure_is_the_same(migrated_url: URL) -> None:
    async def expired() -> tuple[Database, AsyncSession, User]:
        db = Database(migrated_url)
        session = db.session()
        user = await create_user(session, UserCreate(name="Ada"))
        session.expire(user)
        return db, session, user

    async def end(db: Database, session: AsyncSession) -> None:
        await session.close()
        await db.dispose()

    with asyncio.Runner() as runner:
        db, session, user = runner.run(expired())

        with pytest.raises(MissingGreenlet, match=CURE):
            _ = user.name

        runner.run(end(db, session))


async def test_a_hosts_own_session_gets_the_same_error(db: Database) -> None:
    async with HostSession(db.engine) as session:
        user = User(name="Ada")
        session.add(user)
        await session.commit()

        with pytest.raises(MissingGreenlet, match=CURE):
            _ = user.name


@pytest.mark.parametrize(
    ("read", "cure"),
    [
        (
            lambda user, pet: user.pets,
            r"'User\.pets' is not available .*: load it with `await session\.refresh\(user, \[\"pets\"\]\)`"
            r" or `get_user\(session, user_id, with_pets=True\)`$",
        ),
        (
            lambda user, pet: pet.owner,
            r"'Pet\.owner' is not available .*: load it with `await session\.refresh\(pet, \[\"owner\"\]\)`"
            r" or `get_pet\(session, pet_id, with_owner=True\)`$",
        ),
    ],
)
async def test_a_relationship_that_is_not_loaded_names_what_loads_it(
    db: Database, user: User, read: Callable[[User, Pet], Any], cure: str
) -> None:
    async with db.reading() as session:
        pet = (await session.exec(select(Pet))).one()
        user = await get_user(session, user.id)
        with pytest.raises(InvalidRequestError, match=cure):
            read(user, pet)

        await session.refresh(pet, ["owner"])
        await session.refresh(user, ["pets"])
        assert read(user, pet) in ([pet], user)


async def test_a_relationship_that_an_application_loads_in_another_way_has_other_errors(
    session: AsyncSession, user: User
) -> None:
    session.expunge_all()
    [pet] = await session.exec(select(Pet).options(lazyload(Pet.owner)))  # type: ignore[arg-type]  # SQLModel's type
    with pytest.raises(SQLAlchemyError) as caught:
        _ = pet.owner
    assert "refresh(pet" not in str(caught.value)

    assert (await session.run_sync(lambda _: pet.owner)).id == user.id


def test_in_a_synchronous_session_an_expired_row_is_read_again(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/x.db")
    SQLModel.metadata.create_all(engine)
    with Session(engine) as session:
        user = User(name="Ada")
        session.add(user)
        session.commit()

        assert user.name == "Ada"
    engine.dispose()


def test_a_row_without_a_session_or_an_engine_has_sqlalchemys_own_error() -> None:
    user = User(id=1, name="Ada")
    sa.orm.make_transient_to_detached(user)
    sa.inspect(user)._expire_attributes(user.__dict__, ["name"])
    with pytest.raises(DetachedInstanceError):
        _ = user.name

    with Session() as session:
        session.add(user)
        with pytest.raises(UnboundExecutionError):
            _ = user.name


@pytest.mark.parametrize("has_loop", [True, False])
def test_a_statement_without_await_is_told_in_the_same_words_with_and_without_a_loop(
    migrated_url: URL, has_loop: bool
) -> None:
    db = Database(migrated_url)

    def read() -> None:
        with pytest.raises(MissingGreenlet, match=r"without await: use `await session\.refresh"):
            db.session().sync_session.execute(select(Pet))

    async def read_in_a_loop() -> None:
        read()

    if has_loop:
        asyncio.run(read_in_a_loop())
    else:
        read()
