"""Rows that a reader loads without the ORM's own loading are rows as the ORM loads them."""

import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import IllegalStateChangeError, InvalidRequestError, MissingGreenlet
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_
from sqlmodel import col, select

from sqlmodel_alembic_async import (
    Database,
    DatabaseError,
    Pet,
    PetCreate,
    StorageError,
    User,
    UserCreate,
    count_pets,
    create_pet,
    create_pets,
    create_user,
    get_pet,
    get_user,
    list_pets,
    list_users,
    sessions,
    stream_pets,
    update_pet,
)
from sqlmodel_alembic_async.databases import AsyncSession
from sqlmodel_alembic_async.models import PetUpdate

from .conftest import Statements

STATE = ("key", "session_id", "identity_token", "expired", "modified", "deleted", "persistent", "load_options")


@pytest.fixture
async def pet(db: Database) -> Pet:
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))
        return await create_pet(session, PetCreate(name="Rex", species="dog", owner_id=ada.id, weight_g=900))


@contextmanager
def listening(target: Any, name: str, listener: Any) -> Iterator[None]:
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


def shown(row: User | Pet) -> dict[str, Any]:
    """What a session and pydantic know of a row."""
    state = sa.inspect(row)
    of_state = {name: getattr(state, name) for name in STATE if name != "session_id"}
    return {
        **of_state,
        "is of the session": state.session is not None,
        "values": {name: value for name, value in row.__dict__.items() if name != "_sa_instance_state"},
        "changes": state.committed_state,
        "unloaded": state.unloaded,
        "set": row.model_fields_set,
        "repr": repr(row),
    }


async def test_a_loaded_row_is_as_the_orm_loads_it(db: Database, pet: Pet) -> None:
    async with db.reading() as session:
        loaded = [await get_pet(session, pet.id), *(await list_users(session)).items]
        assert not session.in_transaction()  # It was not the ORM.
        got = list(map(shown, loaded))
    async with db.reading() as session:
        by_orm = [*await session.exec(select(Pet)), *await session.exec(select(User))]
        expected = list(map(shown, by_orm))

    assert got == expected


async def test_a_loaded_row_lives_as_any_row(db: Database, pet: Pet) -> None:
    async with db.reading() as session:
        loaded = await get_pet(session, pet.id)
        assert session.sync_session.identity_map[sa.inspect(loaded).key] is loaded
        with pytest.raises(InvalidRequestError, match="lazy"):
            _ = loaded.owner
        await session.refresh(loaded, ["owner"])
        assert loaded.owner is not None
        assert loaded.owner.name == "Ada"

        session.expire(loaded)
        with pytest.raises(MissingGreenlet):
            _ = loaded.name
        await session.refresh(loaded)
        assert loaded.name == "Rex"
        assert sa.inspect(pickle.loads(pickle.dumps(loaded))).key == sa.inspect(loaded).key

    assert sa.inspect(loaded).detached
    async with db.transaction() as session:
        again = await session.merge(loaded)
        again.name = "Max"
    async with db.reading() as session:
        assert (await get_pet(session, pet.id)).name == "Max"


async def test_a_change_of_a_loaded_row_is_refused_and_undone(db: Database, pet: Pet) -> None:
    with pytest.raises(StorageError, match="read-only"):
        async with db.reading() as session:
            loaded = await get_pet(session, pet.id)
            loaded.name = "Max"
            assert loaded in session.dirty

    assert loaded.name == "Rex"


async def test_a_row_that_is_read_again_is_the_same_object_with_new_values(db: Database, pet: Pet) -> None:
    async with db.reading() as session:
        first = await get_pet(session, pet.id)
        async with db.transaction() as writing:
            await update_pet(writing, pet.id, PetUpdate(name="Max"))
        second = await get_pet(session, pet.id)
        (third,) = (await list_pets(session)).items

    assert first is second is third
    assert first.name == "Max"


async def test_rows_that_are_read_again_and_others_are_in_one_page(db: Database, pet: Pet) -> None:
    async with db.transaction() as session:
        await create_pets(session, [PetCreate(name="Ada"), PetCreate(name="Zoe")])

    async with db.reading() as session:
        held = await get_pet(session, pet.id)
        found = (await list_pets(session)).items

    assert [each.name for each in found] == ["Ada", "Rex", "Zoe"]
    assert found[1] is held


async def test_a_reader_holds_no_connection_between_its_statements(migrated_url: URL, pet: Pet) -> None:
    async with Database(migrated_url, pool_size=1, max_overflow=0, pool_timeout=0.1) as db, db.reading() as session:
        assert (await get_pet(session, pet.id)).name == "Rex"
        async with db.reading() as other:
            assert (await get_pet(other, pet.id)).name == "Rex"


async def test_each_load_is_one_statement(db: Database, statements: Statements, pet: Pet) -> None:
    async with db.reading() as session:
        held = await get_pet(session, pet.id)
        before = len(statements)
        assert (await get_pet(session, pet.id), *(await list_pets(session)).items) == (held, held)
        assert len(statements) == before + 2
        assert not session.in_transaction()


async def test_a_row_that_is_read_again_is_as_the_orm_refreshes_it(db: Database, pet: Pet) -> None:
    got = []
    for read in (get_pet, get_pet_by_orm):
        async with db.reading() as session:
            loaded = await get_pet(session, pet.id, with_owner=True)
            session.expire(loaded, ["name", "owner"])
            loaded.weight_g = loaded.weight_g  # It changes nothing.
            assert await read(session, pet.id) is loaded
            got.append(shown(loaded))
            with pytest.raises(InvalidRequestError, match="lazy"):
                _ = loaded.owner

    assert got[0] == got[1]


async def get_pet_by_orm(session: AsyncSession, pet_id: int) -> Pet:
    query = select(Pet).where(Pet.id == pet_id)
    return (await session.exec(query, execution_options={"populate_existing": True})).one()


async def test_rows_are_loaded_in_slices(db: Database) -> None:
    async with db.transaction() as session:
        await create_pets(session, [PetCreate(name=f"Rex {number:03}") for number in range(500)])

    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with db.reading() as session:
        counting = asyncio.create_task(count_turns())
        page = await list_pets(session, limit=400)
        counting.cancel()
        streamed = [each.name async for each in stream_pets(session)]

    assert [each.name for each in page.items] == streamed[:400]
    assert len(streamed) == 500
    assert turns > 3


async def test_two_tasks_cannot_use_one_reader(db: Database, pet: Pet) -> None:
    async with db.reading() as session:
        results = await asyncio.gather(
            get_pet(session, pet.id), get_pet(session, pet.id), list_pets(session), return_exceptions=True
        )

    assert isinstance(results[0], Pet)
    for refused in results[1:]:
        assert isinstance(refused, DatabaseError)
        assert "in use by another task" in str(refused)


async def test_no_other_statement_runs_while_a_task_loads(db: Database, pet: Pet) -> None:
    async with db.reading() as session:
        results = await asyncio.gather(
            get_pet(session, pet.id), session.get(Pet, pet.id), session.exec(select(Pet)), return_exceptions=True
        )

    assert isinstance(results[0], Pet)
    assert [type(refused) for refused in results[1:]] == [InvalidRequestError, InvalidRequestError]


async def test_who_leaves_the_block_ends_the_load_of_another_task(
    db: Database, pet: Pet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_CLOSE_TIMEOUT", 0.1)
    pool: Any = db.engine.pool

    def wait(*args: object) -> None:
        await_(asyncio.sleep(0.5))

    event.listen(db.engine.sync_engine, "before_cursor_execute", wait)
    async with db.reading() as session:
        loading = asyncio.create_task(get_pet(session, pet.id))
        await asyncio.sleep(0.1)
    with pytest.raises(DatabaseError):
        await loading
    assert pool.reader.checkedout() == 0
    with pytest.raises(DatabaseError, match="the session is closed"):
        await get_pet(session, pet.id)


async def test_a_load_that_waits_for_a_connection_ends_with_the_session(
    migrated_url: URL, pet: Pet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_CLOSE_TIMEOUT", 0.1)
    async with Database(migrated_url, pool_size=1, max_overflow=0) as db:
        async with db.reading() as holding:
            await count_pets(holding)
            async with db.reading() as session:
                loading = asyncio.create_task(get_pet(session, pet.id))
                await asyncio.sleep(0.05)
        with pytest.raises(DatabaseError, match="the session is closed"):
            await loading


async def test_a_failed_load_holds_no_connection(empty_url: URL) -> None:
    async with Database(empty_url, pool_size=1, max_overflow=0) as db, db.reading() as session:
        with pytest.raises(DatabaseError, match="a table is missing"):
            await get_pet(session, 1)
        pool: Any = db.engine.pool
        assert pool.reader.checkedout() == 0
        assert not session.in_transaction()


async def test_a_reader_has_no_transaction(db: Database) -> None:
    async with db.reading() as session:
        with pytest.raises(DatabaseError, match="no transaction"):
            session.begin()


async def test_a_pool_of_the_application_lends_its_connection_for_the_block(migrated_url: URL, pet: Pet) -> None:
    async with Database(migrated_url, poolclass=NullPool) as db, db.reading() as session:
        assert session.in_transaction()
        assert (await get_pet(session, pet.id)).name == "Rex"


async def test_a_reader_that_is_loading_is_not_closed(db: Database, pet: Pet) -> None:
    async with db.reading() as session:
        loading = asyncio.create_task(get_pet(session, pet.id))
        await asyncio.sleep(0)
        with pytest.raises(IllegalStateChangeError):
            await session.close()
        assert (await loading).name == "Rex"


async def test_a_closed_reader_loads_nothing(db: Database, pet: Pet) -> None:
    async with db.reading() as session:
        pass
    with pytest.raises(DatabaseError, match="the session is closed"):
        await get_pet(session, pet.id)


async def test_the_application_can_hide_rows(db: Database, pet: Pet) -> None:
    def hide(state: ORMExecuteState) -> None:
        state.statement = state.statement.options(with_loader_criteria(Pet, col(Pet.name) != "Rex"))

    with listening(Session, "do_orm_execute", hide):
        async with db.reading() as session:
            assert (await list_pets(session)).items == []
    async with db.reading() as session:
        assert len((await list_pets(session)).items) == 1


@pytest.mark.parametrize(
    ("target", "name"),
    [
        *((Session, name) for name in ("after_begin", "after_transaction_create", "after_transaction_end")),
        *((Session, "loaded_as_persistent"), (Pet, "load"), (Pet, "refresh")),
    ],
)
async def test_the_application_is_told_of_loaded_rows(db: Database, pet: Pet, target: Any, name: str) -> None:
    told: list[tuple[Any, ...]] = []

    def listener(*args: Any) -> None:
        told.append(args)

    with listening(target, name, listener):
        async with db.reading() as session:
            loaded = await get_pet(session, pet.id)
            await get_pet(session, pet.id)

    assert len(told) == 1
    assert loaded in told[0] or session.sync_session in told[0]


async def test_a_listener_may_be_any_function(db: Database, pet: Pet) -> None:
    told: list[ORMExecuteState] = []
    with listening(Session, "do_orm_execute", told.append):
        async with db.reading() as session:
            await get_pet(session, pet.id)

    assert len(told) == 1


def test_attributes_that_the_application_maps_are_loaded(empty_url: URL) -> None:
    program = """
import asyncio
import sqlalchemy as sa
from sqlalchemy.orm import backref, column_property, relationship
from sqlmodel import Field, Relationship, SQLModel
from sqlmodel_alembic_async import *

sa.inspect(Pet).add_property("shout", column_property(sa.func.upper(Pet.__table__.c.name)))
sa.inspect(Pet).add_property("title", column_property(sa.func.lower(Pet.__table__.c.name)))

class Visit(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user.id")
    user: User = Relationship(sa_relationship=relationship(User, backref=backref("visits", lazy="selectin")))

async def main():
    async with database:
        await migrations.upgrade()
        async with database.transaction() as session:
            pet = await create_pet(session, PetCreate(name="Rex"))
        async with database.reading() as session:
            pet = await get_pet(session, pet.id)
            print(pet.shout, pet.title, (await list_pets(session)).items[0].shout)
        async with database.engine.begin() as connection:
            await connection.run_sync(Visit.__table__.create)
        async with database.transaction() as session:
            await delete_pet(session, pet.id)
            user = await create_user(session, UserCreate(name="Ada"))
            session.add(Visit(user_id=user.id))
        async with database.reading() as session:
            print(len((await get_user(session, user.id)).visits))

asyncio.run(main())
"""
    url = empty_url.render_as_string(hide_password=False)
    environment = os.environ | {"DATABASE_URL": url}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.returncode) == ("REX rex REX\n1\n", 0), done.stderr


async def test_a_user_and_the_pets_are_read_together(db: Database, pet: Pet) -> None:
    async with db.reading() as session:
        user = await get_user(session, pet.owner_id or 0, with_pets=True)

    assert [each.name for each in user.pets] == ["Rex"]


async def test_a_session_of_the_application_loads_by_the_orm(db: Database, pet: Pet) -> None:
    async with AsyncSession(db.engine) as session:
        assert (await get_pet(session, pet.id)).name == "Rex"
        assert session.in_transaction()
