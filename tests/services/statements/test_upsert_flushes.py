"""Upserts by a flush: what listeners do to the rows, and what is left of rows that reserve keys."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlmodel import col, select

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    InvalidValueError,
    PetCreate,
    UpsertReport,
    User,
    UserCreate,
    create_users,
    list_users,
    upsert_pets,
    upsert_user,
    upsert_users,
)

from ...conftest import Statements
from ..heard import heard


class Refused(Exception):  # noqa: N818  # it is no mistake
    """A listener of the application raises it."""


def listen(session: AsyncSession, listener: Callable[..., None]) -> None:
    event.listen(session.sync_session, "before_flush", listener)


def users(number: int, name: str = "User") -> list[UserCreate]:
    return [UserCreate(name=f"{name} {each}", external_ref=f"S{each:03}") for each in range(number)]


async def names(db: Database) -> list[str]:
    async with db.reading() as session:
        return [user.name for user in (await list_users(session)).items]


async def test_a_refused_flush_leaves_no_row_that_reserves_a_key(db: Database) -> None:
    """The transaction goes on, because the flush did not begin."""

    def refuse(*arguments: object) -> None:
        raise Refused

    async with db.session() as session:
        listen(session, refuse)
        with pytest.raises(Refused):
            await upsert_users(session, users(3))
        event.remove(session.sync_session, "before_flush", refuse)
        await session.commit()
        assert await names(db) == []
        assert (await upsert_user(session, users(1)[0]))[1] == "created"


async def test_a_row_that_a_listener_removes_from_the_flush_is_not_stored(db: Database) -> None:
    def veto(session: Any, *arguments: object) -> None:
        for row in list(session.new):
            if row.name == "User 1":
                session.expunge(row)

    async with db.transaction() as session:
        listen(session, veto)
        await upsert_users(session, users(3))

    assert await names(db) == ["User 0", "User 2"]


async def test_rows_that_a_listener_adds_are_stored_beside(db: Database) -> None:
    def add(session: Any, *arguments: object) -> None:
        if not session.info.setdefault("added", []):
            session.info["added"] = [User(id=2_000_000, name="Log", external_ref="L1"), User(name="Log")]
            session.add_all(session.info["added"])

    async with db.transaction() as session:
        listen(session, add)
        assert await upsert_users(session, users(3)) == UpsertReport(3, 0, 0)

    assert await names(db) == ["Log", "Log", "User 0", "User 1", "User 2"]


async def test_a_row_that_a_listener_adds_with_a_stored_id_is_refused(db: Database) -> None:
    async with db.transaction() as session:
        stored = (await upsert_user(session, UserCreate(name="Ada", external_ref="A1")))[0].id

    def add(session: Any, *arguments: object) -> None:
        session.add(User(id=stored, name="Eve"))

    with pytest.raises(AlreadyExistsError):
        async with db.transaction() as session:
            listen(session, add)
            await upsert_users(session, users(3))
    assert await names(db) == ["Ada"]


async def test_rows_that_contradict_each_other_are_refused_by_the_database(db: Database) -> None:
    day = date(2020, 1, 1)
    pets = [
        PetCreate(name="Rex", external_ref="S1", status="deceased", deceased_on=day),
        PetCreate(name="Rex", external_ref="S1", status="active"),
    ]

    with heard(), pytest.raises(InvalidValueError) as caught:
        async with db.transaction() as session:
            await upsert_pets(session, pets)
    assert caught.value.constraint == "ck_pet_deceased_on"


@pytest.mark.parametrize(("name", "count"), [("after_insert", 150), ("before_update", 150), ("before_delete", 0)])
async def test_one_kind_of_change_is_heard(db: Database, name: str, count: int) -> None:
    async with db.transaction() as session:
        await create_users(session, users(300)[::2])

    with heard(name) as found:
        async with db.transaction() as session:
            held = (await list_users(session)).items
            assert await upsert_users(session, users(300, "New")) == UpsertReport(150, 150, 0)
            assert {(user.name[:3], user.version) for user in held} == {("New", 2)}

    assert len(found) == count
    async with db.reading() as session:
        query = select(User.name, User.version).order_by(col(User.external_ref))
        assert (await session.exec(query)).all() == [(f"New {each}", 2 - each % 2) for each in range(300)]


async def test_a_stored_row_is_written_over_by_nothing_else(db: Database) -> None:
    """A statement of a listener to another table, or to the same one, is left as it is."""
    table = sa.inspect(User).local_table

    def log(mapper: object, connection: sa.Connection, user: User) -> None:
        values = {**user.model_dump(exclude={"id"}), "external_ref": None, "name": "Log"}
        connection.execute(sa.insert(table).values(values))
        connection.execute(sa.update(table).where(table.c.name == "Log").values(city="Rome"))

    event.listen(User, "before_insert", log)
    try:
        async with db.transaction() as session:
            await upsert_users(session, users(2))
    finally:
        event.remove(User, "before_insert", log)
    assert sorted(await names(db)) == ["Log", "Log", "User 0", "User 1"]


async def test_the_numbers_of_statements(db: Database, statements: Statements, engine_name: str) -> None:
    on_server = engine_name != "sqlite"
    with heard():
        async with db.transaction() as session:
            assert await statements.taken_by(upsert_user(session, users(1)[0])) == 2 + on_server
            assert await statements.taken_by(upsert_user(session, users(1)[0])) == 1
            assert await statements.taken_by(upsert_user(session, users(1, "New")[0])) == 3
