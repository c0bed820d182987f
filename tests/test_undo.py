"""What a rollback undoes in the database is undone in memory, too."""

import asyncio
import gc
import io
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, make_transient, mapped_column
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession as PlainSession

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    DatabaseError,
    ImportRejectedError,
    Pet,
    PetCreate,
    PetNotFoundError,
    PetUpdate,
    SimilarExistsError,
    StaleVersionError,
    TransactionConflictError,
    UserCreate,
    UserUpdate,
    archive_pet,
    archive_user,
    count_pets,
    create_pet,
    create_pets,
    create_user,
    delete_pet,
    delete_user,
    find_pet_by_microchip,
    get_pet,
    get_user,
    import_pets,
    list_pets,
    merge_users,
    transfer_pet,
    undo,
    undo_log,
    update_pet,
    update_user,
)

from .changes import CHANGES, CHIP, Change, GiveUp, Held, rolled_back, update_by_core, update_by_orm, update_by_sql
from .conftest import Statements

# Half a second.
SLEEP = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(0.5)",
    "mysql": "SELECT sleep(0.5)",
}


@pytest.fixture
async def session(db: Database, request: pytest.FixtureRequest) -> AsyncIterator[AsyncSession]:
    """A session of the package, unless the test asks for one of a host."""
    async with getattr(request, "param", AsyncSession)(db.engine, expire_on_commit=False) as session:
        yield session


with_both_sessions = pytest.mark.parametrize(
    "session", [AsyncSession, PlainSession], ids=["ours", "host"], indirect=True
)


@pytest.fixture
async def held(session: AsyncSession) -> Held:
    ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com", notes="calls at noon"))
    bob = await create_user(session, UserCreate(name="Bob", phone="+44 1234"))
    rex = await create_pet(
        session, PetCreate(name="Rex", owner_id=ada.id, acquired_on=date(2020, 1, 1), notes="Ada's", external_ref="S1")
    )
    max_ = await create_pet(session, PetCreate(name="Max", microchip=CHIP))
    await archive_pet(session, max_.id)
    await session.commit()
    return Held(ada, bob, rex, max_)


async def stored(session: AsyncSession, held: Held) -> list[dict[str, Any]]:
    """Return the rows as the database has them."""
    found = []
    for row in held:
        table = sa.inspect(type(row)).local_table
        query = sa.select(table).where(table.c.id == row.id)
        found.append(dict((await session.exec(query)).mappings().one()))  # type: ignore[call-overload]
    return found


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_rollback_to_a_savepoint_puts_the_rows_back(
    session: AsyncSession, held: Held, statements: Statements, change: Change
) -> None:
    before = held.values()

    async with rolled_back(session):
        await change(session, held)

    asked = len(statements)
    assert held.values() == before
    assert len(statements) == asked
    assert await stored(session, held) == before
    assert all(row in session for row in held)


@pytest.mark.parametrize("session", [PlainSession], indirect=True)
async def test_a_rollback_to_a_savepoint_puts_the_rows_of_a_hosts_session_back(
    session: AsyncSession, held: Held
) -> None:
    before = held.values()

    for name, change in CHANGES.items():
        async with rolled_back(session):
            await change(session, held)
        assert held.values() == before == await stored(session, held), name


async def test_a_released_savepoint_is_undone_with_the_one_around_it(session: AsyncSession, held: Held) -> None:
    before = held.values()

    for name, change in CHANGES.items():
        async with rolled_back(session):
            async with session.begin_nested():
                await change(session, held)
            async with session.begin_nested():
                await list_pets(session, archived=None)

        assert held.values() == before == await stored(session, held), name


@pytest.mark.parametrize("name", ["update a pet", "update around a savepoint", "merge users", "import", "edit"])
async def test_what_a_savepoint_keeps_stays_in_memory(session: AsyncSession, held: Held, name: str) -> None:
    async with session.begin_nested():
        await CHANGES[name](session, held)
        async with rolled_back(session):
            await update_pet(session, (await create_pet(session, PetCreate(name="Lost"))).id, PetUpdate(name="W"))
    await session.commit()

    for row in [row for row in held if row in session]:
        in_memory = row.model_dump()
        await session.refresh(row)
        assert row.model_dump() == in_memory


@with_both_sessions
async def test_a_write_after_a_rolled_back_savepoint_is_not_lost(session: AsyncSession, held: Held) -> None:
    pet = await get_pet(session, held.rex.id)
    async with rolled_back(session):
        await update_pet(session, pet.id, PetUpdate(name="W"))

    pet.name = "W"
    await session.commit()

    await session.refresh(pet)
    assert (pet.name, pet.version) == ("W", 2)


@pytest.mark.parametrize(
    "name",
    ["update a pet", "transfer", "merge pets", "import", "edit", "edit without a flush", "Core", "ORM statement"],
)
async def test_a_row_that_was_put_back_never_overwrites_a_newer_one(
    db: Database, session: AsyncSession, held: Held, name: str
) -> None:
    async with rolled_back(session):
        await CHANGES[name](session, held)
    await session.commit()
    async with db.transaction() as other:
        await update_pet(other, held.rex.id, PetUpdate(color="newer"))
        await update_pet(other, held.max.id, PetUpdate(color="newer"))

    with pytest.raises(StaleVersionError):
        await update_pet(session, held.max.id, PetUpdate(color="older"), expected_version=held.max.version)
    held.rex.color = "older"
    with pytest.raises(StaleDataError):
        await session.commit()

    async with db.reading() as reader:
        assert {pet.color for pet in (await list_pets(reader, archived=None)).items} == {"newer"}


async def test_a_savepoint_that_fails_makes_no_unit_repeat(db: Database) -> None:
    async with db.transaction() as session:
        pet_id = (await create_pet(session, PetCreate(name="Rex"))).id
    attempts = 0

    async def work(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        pet = await get_pet(session, pet_id)
        async with rolled_back(session):
            await update_pet(session, pet_id, PetUpdate(name="W"))
        pet.color = "red"

    await db.run_transaction(work)

    assert attempts == 1
    async with db.reading() as session:
        pet = await get_pet(session, pet_id)
    assert (pet.name, pet.color, pet.version) == ("Rex", "red", 2)


async def test_a_failed_statement_puts_the_rows_back_at_once(session: AsyncSession, held: Held) -> None:
    before = held.values()

    with pytest.raises(AlreadyExistsError):
        async with session.begin_nested():
            await update_pet(session, held.rex.id, PetUpdate(name="W"))
            try:
                await create_pet(session, PetCreate(name="Twin", external_ref="S1"))
            finally:
                in_the_savepoint = held.values()

    assert in_the_savepoint == held.values() == before == await stored(session, held)


async def test_an_edit_that_a_failed_flush_undid_is_undone(session: AsyncSession, held: Held) -> None:
    before = held.values()

    with pytest.raises(AlreadyExistsError):
        async with session.begin_nested():
            held.rex.name = "Edited"
            held.max.external_ref = "S1"
            await count_pets(session)

    assert held.values() == before == await stored(session, held)


# Rows that are read first in the savepoint.


async def test_a_row_first_read_after_its_change_is_read_anew(session: AsyncSession, held: Held) -> None:
    rex_id, ada_id = held.rex.id, held.ada.id
    session.expunge_all()

    async with rolled_back(session):
        await update_pet(session, rex_id, PetUpdate(name="W"))
        pet = await get_pet(session, rex_id)
        await update_pet(session, rex_id, PetUpdate(color="red"))
        user = await archive_user(session, ada_id)
        async with session.begin_nested():
            await update_user(session, ada_id, UserUpdate(city="Rome"))

    assert "name" in sa.inspect(pet).expired_attributes
    await session.refresh(pet)
    await get_user(session, ada_id)
    assert (pet.name, pet.color, pet.version) == ("Rex", None, 1)
    assert (user.archived_at, user.city, user.version) == (None, None, 1)


@pytest.mark.parametrize("change", [update_by_sql, update_by_core, update_by_orm])
async def test_a_row_first_read_after_a_change_of_unknown_rows_is_read_anew(
    session: AsyncSession, held: Held, change: Change
) -> None:
    rex_id = held.rex.id
    session.expunge_all()

    async with rolled_back(session):
        await change(session, held)
        pet = await get_pet(session, rex_id)
        await update_pet(session, rex_id, PetUpdate(species="dog"))

    await session.refresh(pet)
    assert (pet.name, pet.color, pet.species, pet.version) == ("Rex", None, None, 1)


async def test_a_row_first_read_after_its_owner_changed_is_read_anew(session: AsyncSession, held: Held) -> None:
    ids = [row.id for row in held]
    session.expunge_all()

    async with rolled_back(session):
        await merge_users(session, ids[1], ids[0])
        pet = await get_pet(session, ids[2])
        assert pet.owner_id == ids[1]

    await session.refresh(pet)
    assert (pet.owner_id, pet.version) == (ids[0], 1)


async def test_a_row_read_before_a_change_of_others_stays_readable(session: AsyncSession, held: Held) -> None:
    rex_id, max_id = held.rex.id, held.max.id
    session.expunge_all()

    async with rolled_back(session):
        pet = await get_pet(session, rex_id)
        before = pet.model_dump()
        await session.exec(sa.text("UPDATE pet SET name = 'SQL'"))  # type: ignore[call-overload]
        await update_pet(session, max_id, PetUpdate(color="red"))

    assert pet.model_dump() == before


async def test_candidates_stay_readable(session: AsyncSession, held: Held) -> None:
    rex = PetCreate(name="Rex", owner_id=held.ada.id)
    session.expunge_all()

    with pytest.raises(SimilarExistsError) as caught:
        async with session.begin_nested():
            carl = await create_user(session, UserCreate(name="Carl"))
            await update_user(session, carl.id, UserUpdate(city="Rome"))
            await create_pet(session, rex, on_similar="error")

    assert [pet.name for pet in caught.value.candidates] == ["Rex"]


async def test_a_row_that_was_created_in_the_savepoint_is_gone(session: AsyncSession) -> None:
    async with rolled_back(session):
        created = await create_pet(session, PetCreate(name="Lost"))
        async with rolled_back(session):
            await update_pet(session, created.id, PetUpdate(name="W"))
        assert (created.name, created.version) == ("Lost", 1)
        dropped = (await create_pet(session, PetCreate(name="Dropped"))).id
        again = await get_pet(session, dropped)
        await create_pets(session, [PetCreate(name="Of many")])
        of_many = (await list_pets(session, name_prefix="of many")).items[0]
        session.add(Pet(name="By flush"))
        by_flush = (await list_pets(session, name_prefix="by flush")).items[0]

    assert created not in session
    assert sa.inspect(again).transient
    assert sa.inspect(by_flush).transient
    assert "name" in sa.inspect(of_many).expired_attributes
    with pytest.raises(InvalidRequestError):
        await session.refresh(of_many)
    with pytest.raises(PetNotFoundError):
        await get_pet(session, dropped)
    session.expunge_all()
    assert await count_pets(session) == 0


async def test_many_changes_are_undone_without_a_note_of_each(
    session: AsyncSession, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undo_log, "MAX_KEYS", 2)
    ids = [(await create_pet(session, PetCreate(name=f"Pet {number}"))).id for number in range(9)]
    await session.commit()
    before = held.values()

    async with rolled_back(session):
        first = await get_pet(session, ids[0])
        for pet_id in ids[1:6]:
            await update_pet(session, pet_id, PetUpdate(name="W"))
        await update_pet(session, held.rex.id, PetUpdate(name="W"))
        pets = [await get_pet(session, pet_id) for pet_id in ids[1:]]
        await update_pet(session, ids[0], PetUpdate(name="W"))
        await update_pet(session, ids[8], PetUpdate(name="W"))

    assert held.values() == before
    assert first.name == "Pet 0"
    assert all("name" in sa.inspect(pet).expired_attributes for pet in pets)
    assert len(undo._logs[session.sync_session]) <= 1


async def test_related_rows_that_were_loaded_are_to_be_loaded_anew(session: AsyncSession, held: Held) -> None:
    await session.refresh(held.ada, ["pets"])
    await session.refresh(held.rex, ["owner"])

    async with rolled_back(session):
        await transfer_pet(session, held.rex.id, held.bob.id)
        await session.refresh(held.rex, ["owner"])
        assert held.rex.owner is held.bob

    with pytest.raises(InvalidRequestError, match=r"'Pet\.owner' is not available"):
        _ = held.rex.owner
    await session.refresh(held.rex, ["owner"])
    assert held.rex.owner is held.ada
    assert held.ada.pets == [held.rex]


async def test_a_column_that_was_not_loaded_is_not_put_back(session: AsyncSession, held: Held) -> None:
    session.expire(held.rex, ["name"])

    async with rolled_back(session):
        held.rex.name = "Edited"
        held.rex.color = "red"

    assert held.rex.color is None
    assert "name" in sa.inspect(held.rex).expired_attributes
    await session.refresh(held.rex)
    assert held.rex.name == "Rex"


# Imports.

IMPORTED = "external_ref,name,owner_email\nS1,Imported,ada@example.com\n"


async def test_an_import_that_is_taken_back_leaves_the_rows(session: AsyncSession, held: Held) -> None:
    before = held.values()

    await import_pets(session, io.StringIO(IMPORTED), dry_run=True)
    assert held.values() == before
    with pytest.raises(ImportRejectedError):
        await import_pets(session, io.StringIO(IMPORTED + "S2,,\n"))

    assert held.values() == before == await stored(session, held)
    held.rex.name = "Imported"
    await session.commit()
    await session.refresh(held.rex)
    assert (held.rex.name, held.rex.version) == ("Imported", 2)


async def test_a_dry_run_in_a_savepoint_that_holds_changes_keeps_them(session: AsyncSession, held: Held) -> None:
    async with session.begin_nested():
        await update_pet(session, held.rex.id, PetUpdate(color="red"))
        await import_pets(session, io.StringIO(IMPORTED), dry_run=True)
        assert (held.rex.name, held.rex.color, held.rex.version) == ("Rex", "red", 2)
    assert held.values() == await stored(session, held)


# Whole transactions.


async def test_after_a_whole_rollback_a_write_is_not_lost(session: AsyncSession, held: Held) -> None:
    rex_id = held.rex.id
    await update_pet(session, rex_id, PetUpdate(name="W"))
    await session.rollback()

    held.rex.name = "W"
    await session.commit()

    await session.refresh(held.rex)
    assert (held.rex.name, held.rex.version) == ("W", 2)


@pytest.fixture
async def kept(db: Database) -> Held:
    """The same rows, held by no session."""
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))
        bob = await create_user(session, UserCreate(name="Bob"))
        rex = await create_pet(session, PetCreate(name="Rex", owner_id=ada.id, external_ref="S1"))
        max_ = await create_pet(session, PetCreate(name="Max", microchip=CHIP))
    return Held(ada, bob, rex, max_)


SERVICES = {name: change for name, change in CHANGES.items() if name not in ("text", "Core", "ORM statement")}


async def test_rows_of_a_transaction_that_failed_are_put_back(db: Database, kept: Held) -> None:
    before = kept.values()

    for name, change in SERVICES.items():
        with pytest.raises(GiveUp):
            async with db.transaction() as session:
                session.add_all(kept)
                await change(session, kept)
                raise GiveUp
        assert kept.values() == before, name

    async with db.transaction() as session:
        session.add_all(kept)
        kept.rex.name = "W"
    async with db.reading() as session:
        assert (await get_pet(session, kept.rex.id)).name == "W"


async def test_rows_of_a_session_that_is_closed_without_a_commit_are_put_back(db: Database, kept: Held) -> None:
    before = kept.values()

    for name, change in SERVICES.items():
        async with db.session() as session:
            session.add_all(kept)
            await change(session, kept)
        assert kept.values() == before, name


@pytest.mark.parametrize("savepoints", [(0, 0, 1), (0, 1, 2), (0, 1, 1), (1, 1, 2)])
async def test_a_session_is_closed_in_savepoints_after_a_row_was_added_and_deleted(
    db: Database, savepoints: tuple[int, int, int]
) -> None:
    added, deleted, closed = savepoints
    pet = Pet(name="Rex")
    async with db.session() as session:
        for level in range(closed + 1):
            if level > 0:
                await session.begin_nested()
            if level == added:
                session.add(pet)
                await session.flush()
            if level == deleted:
                await session.delete(pet)
                await session.flush()

    assert sa.inspect(pet).transient
    async with db.transaction() as session:
        session.add(pet)
    async with db.reading() as session:
        assert await count_pets(session) == 1


async def test_a_row_first_read_by_its_change_in_a_transaction_that_failed_shows_nothing(
    db: Database, kept: Held
) -> None:
    with pytest.raises(GiveUp):
        async with db.transaction() as session:
            pet = await update_pet(session, kept.rex.id, PetUpdate(name="W"))
            other = await get_pet(session, kept.max.id)
            raise GiveUp

    assert other.name == "Max"
    assert repr(pet) == f"Pet(id={kept.rex.id})"
    async with db.transaction() as session:
        session.add(pet)
        pet.name = "W"
    async with db.reading() as session:
        assert (await get_pet(session, kept.rex.id)).name == "W"


@pytest.mark.parametrize("savepoint", [True, False])
async def test_a_row_made_outside_of_a_unit_that_is_repeated_is_not_lost(db: Database, savepoint: bool) -> None:
    pet = Pet(name="Rex")
    attempts = 0

    async def work(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        if savepoint:
            await session.begin_nested()
        session.add(pet)
        await session.flush()
        if attempts == 1:
            raise TransactionConflictError("busy")

    await db.run_transaction(work)

    async with db.reading() as session:
        assert [pet.name for pet in (await list_pets(session)).items] == ["Rex"]


async def test_candidates_of_a_transaction_that_failed_stay_readable(db: Database, kept: Held) -> None:
    with pytest.raises(SimilarExistsError) as caught:
        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Carl"))
            await create_pet(session, PetCreate(name="Rex", owner_id=kept.ada.id), on_similar="error")

    assert [pet.name for pet in caught.value.candidates] == ["Rex"]


async def test_a_row_found_by_its_key_is_put_back(session: AsyncSession, held: Held) -> None:
    async with rolled_back(session):
        await session.exec(sa.update(sa.inspect(Pet).local_table).values(name="Core"))
        assert (await find_pet_by_microchip(session, CHIP)).name == "Core"

    assert held.max.name == "Max"
    assert (await session.exec(select(Pet.name).where(col(Pet.id) == held.max.id))).one() == "Max"


async def test_a_connection_outlives_the_session_that_had_a_savepoint_on_it(db: Database) -> None:
    async with db.engine.connect() as connection:
        async with AsyncSession(connection) as session, session.begin_nested():
            await create_pet(session, PetCreate(name="Rex"))
        del session
        gc.collect()

        deleted = await connection.execute(sa.delete(sa.inspect(Pet).local_table))

    assert deleted.rowcount == 0


async def ids_of(db: Database) -> tuple[int, int, int]:
    """Store Ada, who has Rex, and Bob; return the ids of Rex, Ada and Bob."""
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada"))
        bob = await create_user(session, UserCreate(name="Bob"))
        rex = await create_pet(session, PetCreate(name="Rex", owner_id=ada.id))
    return rex.id, ada.id, bob.id


async def stored_pet(db: Database, pet_id: int) -> dict[str, Any]:
    async with db.reading() as session:
        return (await get_pet(session, pet_id)).model_dump()


def test_a_hosts_own_rows_are_left_alone_in_a_savepoint() -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "note"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str] = mapped_column(default="")

    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with SyncSession(engine) as session:
        with session.begin_nested():
            note = Note()
            session.add(note)
        note.text = "edited"
        session.flush()
        session.execute(sa.update(Note).values(text="edited again"))
        session.commit()

        assert session.scalars(sa.select(Note.text)).all() == ["edited again"]
    engine.dispose()


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("transaction", ["transaction", "session"])
async def test_a_time_out_at_the_end_of_a_savepoint_is_a_time_out(db: Database, transaction: str) -> None:
    rex, *_ = await ids_of(db)

    async with db.session() as blocker:
        await update_pet(blocker, rex, PetUpdate(notes="locked"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), getattr(db, transaction)() as session:
                pet = await get_pet(session, rex)
                async with session.begin_nested():
                    pet.color = "waits"

    assert db.engine.pool.checkedout() == 0


@pytest.mark.parametrize("flushed", [True, False])
async def test_an_edit_made_outside_of_a_unit_that_is_repeated_is_not_lost(db: Database, flushed: bool) -> None:
    rex, *_ = await ids_of(db)
    async with db.reading() as session:
        pet = await get_pet(session, rex)
    pet.name = "W"
    attempts = 0

    async def work(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        session.add(pet)
        if flushed:
            await session.flush()
        if attempts == 1:
            raise TransactionConflictError("busy")

    await db.run_transaction(work)

    assert (await stored_pet(db, rex))["name"] == "W"


async def test_an_edit_of_a_stale_row_made_outside_of_a_unit_stays_refused(db: Database) -> None:
    rex, *_ = await ids_of(db)
    async with db.reading() as session:
        pet = await get_pet(session, rex)
    async with db.transaction() as session:
        await update_pet(session, rex, PetUpdate(color="newer"))
    pet.name = "W"

    async def work(session: AsyncSession) -> None:
        session.add(pet)

    with pytest.raises(StaleVersionError):
        await db.run_transaction(work, attempts=2)

    assert pet.name == "W"
    assert (await stored_pet(db, rex))["name"] == "Rex"


async def test_an_edit_made_outside_of_a_transaction_that_failed_can_be_written_by_the_next_one(db: Database) -> None:
    rex, *_ = await ids_of(db)
    async with db.reading() as session:
        pet = await get_pet(session, rex)
    pet.name = "W"
    with pytest.raises(GiveUp):
        async with db.transaction() as session:
            session.add(pet)
            pet.color = "inside"
            raise GiveUp

    async with db.transaction() as session:
        session.add(pet)

    assert {name: (await stored_pet(db, rex))[name] for name in ("name", "color")} == {"name": "W", "color": None}


async def test_an_edit_made_outside_is_forgotten_once_it_is_committed(db: Database) -> None:
    rex, *_ = await ids_of(db)
    async with db.reading() as session:
        pet = await get_pet(session, rex)
    pet.name = "W"
    async with db.session() as session:
        session.add(pet)
        async with session.begin_nested():
            await session.flush()
        await session.commit()
        await update_pet(session, rex, PetUpdate(name="X"))
        await session.commit()

    assert (pet.name, sa.inspect(pet).modified) == ("X", False)


async def test_a_row_read_after_a_change_of_any_row_is_expired_where_the_transaction_fails(db: Database) -> None:
    rex, ada, bob = await ids_of(db)
    rows = []

    with pytest.raises(GiveUp):
        async with db.transaction() as session:
            await delete_user(session, ada, pets="release")
            rows.append(await get_pet(session, rex))
            raise GiveUp
    with pytest.raises(GiveUp):
        async with db.transaction() as session, session.begin_nested():
            await merge_users(session, bob, ada)
            rows.append(await get_pet(session, rex))
            await update_pet(session, rex, PetUpdate(color="x"))
            raise GiveUp

    assert [{"owner_id", "version"} <= sa.inspect(row).expired_attributes for row in rows] == [True, True]


async def test_a_row_of_a_transaction_that_failed_never_becomes_another_row(db: Database) -> None:
    with pytest.raises(GiveUp):
        async with db.transaction() as session:
            ghost = await get_pet(session, (await create_pet(session, PetCreate(name="Lost"))).id)
            raise GiveUp
    async with db.transaction() as session:
        other = (await create_pet(session, PetCreate(name="Other", color="blue"))).id

    ghost.color = "red"
    assert sa.inspect(ghost).transient
    assert (await stored_pet(db, other))["color"] == "blue"


async def test_a_session_is_closed_while_another_task_is_in_a_savepoint_of_it(db: Database) -> None:
    is_in = asyncio.Event()

    async def work(session: AsyncSession) -> None:
        async with session.begin_nested():
            is_in.set()
            await session.exec(sa.text(SLEEP[db.engine.dialect.name]))

    with pytest.raises(GiveUp):
        async with db.session() as session:
            task = asyncio.create_task(work(session))
            await is_in.wait()
            await asyncio.sleep(0.05)
            raise GiveUp
    await asyncio.wait([task])
    task.exception()

    assert not session.in_transaction()
    assert db.engine.pool.checkedout() == 0


async def test_an_outer_savepoint_undoes_what_an_open_inner_one_did(db: Database) -> None:
    rex, *_ = await ids_of(db)
    max_ = Pet(name="Max")

    async with db.session() as session:
        pet = await get_pet(session, rex)
        with pytest.raises(GiveUp):
            async with session.begin_nested():
                await session.begin_nested()
                await delete_pet(session, rex)
                session.add(max_)
                await session.flush()
                raise GiveUp
        outer = await session.begin_nested()
        await session.begin_nested()
        await delete_pet(session, rex)
        await outer.rollback()
        assert max_ not in session
        pet.name = "W"
        session.add(max_)
        await session.commit()

    assert (await stored_pet(db, rex))["name"] == "W"
    assert (await stored_pet(db, max_.id))["name"] == "Max"


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_row_that_was_edited_and_deleted_is_put_back(db: Database, flushed: bool) -> None:
    rex, *_ = await ids_of(db)

    async def edit_and_delete(session: AsyncSession, pet: Pet) -> None:
        pet.name = "X"
        await session.delete(pet)
        if flushed:
            await session.flush()

    async with db.session() as session:
        pet = await get_pet(session, rex)
        async with rolled_back(session):
            await edit_and_delete(session, pet)
        assert pet.name == "Rex"
        await edit_and_delete(session, pet)

    assert pet.name == "Rex"


async def test_a_deleted_row_that_was_made_transient_does_not_keep_a_session_from_closing(db: Database) -> None:
    rex, *_ = await ids_of(db)
    session = db.session()
    pet = await get_pet(session, rex)
    await session.delete(pet)
    await session.flush()
    await session.begin_nested()
    make_transient(pet)

    await session.close()

    assert db.engine.pool.checkedout() == 0


@pytest.mark.parametrize("end", ["close", "reset", "invalidate"])
async def test_every_end_of_a_session_puts_its_rows_back(db: Database, end: str) -> None:
    rex, *_ = await ids_of(db)
    session = db.session()
    pet = await get_pet(session, rex)
    await update_pet(session, rex, PetUpdate(name="W"))

    await getattr(session, end)()

    assert (pet.name, pet.version) == ("Rex", 1)
    await session.close()


async def test_a_row_that_left_the_session_is_put_back_by_a_rollback(db: Database) -> None:
    rex, *_ = await ids_of(db)
    async with db.session() as session:
        held = await get_pet(session, rex)
        pet = await update_pet(session, rex, PetUpdate(name="W"))
        session.expunge(pet)
        await session.rollback()
        assert held is pet

    assert (pet.name, pet.version) == ("Rex", 1)


async def test_a_row_that_is_another_sessions_by_now_is_left_alone(db: Database) -> None:
    rex, *_ = await ids_of(db)
    async with db.session() as first, db.session() as second:
        savepoint = await first.begin_nested()
        pet = await get_pet(first, rex)
        await update_pet(first, rex, PetUpdate(notes="x"))
        first.expunge(pet)
        second.add(pet)
        pet.color = "edited"

        await savepoint.rollback()

        assert pet.color == "edited"


async def test_a_session_that_joined_a_transaction_leaves_its_rows_when_it_closes(db: Database) -> None:
    rex, *_ = await ids_of(db)
    async with db.engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncSession(connection) as session:
            pet = await get_pet(session, rex)
            await update_pet(session, rex, PetUpdate(name="W"))
            max_ = Pet(name="Max")
            session.add(max_)
            await session.flush()
        await transaction.commit()

    assert (pet.name, pet.version) == ("W", 2)
    assert sa.inspect(max_).detached
    assert (await stored_pet(db, rex))["name"] == "W"


async def test_a_service_in_a_closed_session_raises_an_error_of_ours(db: Database) -> None:
    _, ada, _ = await ids_of(db)
    async with db.transaction() as session:
        pass

    with pytest.raises(DatabaseError):
        await delete_user(session, ada, pets="release")


async def test_a_row_with_an_earlier_edit_that_is_another_sessions_by_now_is_left_alone(db: Database) -> None:
    rex, *_ = await ids_of(db)
    async with db.reading() as session:
        pet = await get_pet(session, rex)
    pet.name = "W"
    second = db.session()

    async with db.session() as first:
        first.add(pet)
        first.expunge(pet)
        second.add(pet)
        pet.name = "X"

    assert pet.name == "X"
    await second.close()


async def test_an_owner_whose_pets_alone_were_edited_keeps_its_columns(db: Database) -> None:
    _, ada, _ = await ids_of(db)
    async with db.reading() as session:
        owner = await get_user(session, ada, with_pets=True)
    owner.pets.append(Pet(name="Max"))

    with pytest.raises(GiveUp):
        async with db.transaction() as session:
            session.add(owner)
            raise GiveUp

    assert owner.name == "Ada"


async def test_a_row_whose_id_was_changed_gets_its_id_back(db: Database) -> None:
    rex, *_ = await ids_of(db)
    async with db.session() as session:
        pet = await get_pet(session, rex)
        pet.id = 77
        await session.flush()

    assert (pet.id, sa.inspect(pet).identity) == (rex, (rex,))


@pytest.mark.parametrize("flushed", [True, False])
async def test_another_owner_given_outside_of_a_unit_that_is_repeated_is_not_lost(db: Database, flushed: bool) -> None:
    rex, _, bob = await ids_of(db)
    async with db.reading() as session:
        pet, owner = await get_pet(session, rex), await get_user(session, bob, with_pets=True)
    pet.owner = owner
    attempts = 0

    async def work(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        session.add(pet)
        if flushed:
            await session.flush()
        if attempts == 1:
            raise TransactionConflictError("busy")

    await db.run_transaction(work)

    assert (await stored_pet(db, rex))["owner_id"] == bob
    assert owner.pets == [pet]


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_pet_given_to_an_owner_outside_of_a_unit_that_is_repeated_is_not_lost(
    db: Database, flushed: bool
) -> None:
    _, ada, _ = await ids_of(db)
    async with db.reading() as session:
        owner = await get_user(session, ada, with_pets=True)
    owner.pets.append(Pet(name="Max"))
    attempts = 0

    async def work(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        session.add(owner)
        if flushed:
            await session.flush()
        if attempts == 1:
            raise TransactionConflictError("busy")

    await db.run_transaction(work)

    async with db.reading() as session:
        assert [pet.name for pet in (await list_pets(session, owner_id=ada)).items] == ["Max", "Rex"]
    assert [pet.name for pet in owner.pets] == ["Rex", "Max"]


@pytest.mark.parametrize("end", ["savepoint", "rollback", "close"])
async def test_a_row_that_left_the_session_after_its_change_shows_nothing_that_is_undone(
    db: Database, end: str
) -> None:
    rex, *_ = await ids_of(db)
    async with db.session() as session:
        savepoint = await session.begin_nested()
        pet = await update_pet(session, rex, PetUpdate(name="W"))
        session.expunge(pet)
        created = await create_pet(session, PetCreate(name="Lost"))
        await update_pet(session, created.id, PetUpdate(color="red"))
        session.expunge(created)
        await getattr(savepoint if end == "savepoint" else session, "close" if end == "close" else "rollback")()

    assert repr(pet) == f"Pet(id={rex})"
    assert sa.inspect(pet).detached
    assert sa.inspect(created).transient
    async with db.transaction() as session:
        session.add(pet)
        pet.color = "blue"
    assert {name: (await stored_pet(db, rex))[name] for name in ("name", "color")} == {"name": "Rex", "color": "blue"}


async def test_a_row_that_left_the_session_before_another_read_it_is_left_alone(db: Database) -> None:
    rex, *_ = await ids_of(db)
    async with db.session() as first, db.session() as second:
        savepoint = await first.begin_nested()
        pet = await update_pet(first, rex, PetUpdate(notes="x"))
        first.expunge(pet)
        second.add(pet)

        await savepoint.rollback()

        assert pet.notes == "x"


async def test_a_row_of_which_a_part_was_loaded_shows_nothing_that_is_undone(db: Database) -> None:
    rex, *_ = await ids_of(db)
    async with db.session() as session:
        pet = await get_pet(session, rex)
        session.expire(pet, ["name"])
        await update_pet(session, rex, PetUpdate(name="W"))
        session.expunge(pet)
        await session.rollback()

    assert (pet.version, "name" in pet.__dict__) == (1, False)


async def test_a_row_that_a_hosts_listener_edits_during_a_flush_is_put_back(db: Database) -> None:
    rex, ada, _ = await ids_of(db)
    async with db.session() as session:
        pet, owner = await get_pet(session, rex), await get_user(session, ada)

        @sa.event.listens_for(session.sync_session, "before_flush")
        def touch(*flush: object) -> None:
            owner.notes = "touched"

        async with rolled_back(session):
            pet.name = "W"
            await session.flush()
        assert (owner.notes, owner.version) == (None, 1)
        pet.name = "W"
        await session.flush()
        assert (owner.notes, owner.version) == ("touched", 2)

    assert (owner.notes, owner.version, pet.name, pet.version) == (None, 1, "Rex", 1)


async def test_rows_are_put_back_also_where_the_change_came_after_an_insert(db: Database) -> None:
    rex, *_ = await ids_of(db)
    async with db.session() as session:
        pet = await get_pet(session, rex)
        async with rolled_back(session):
            await create_pets(session, [PetCreate(name="Max")])
            await session.exec(sa.update(Pet).values(color="red", version=Pet.version + 1))
        assert (pet.color, pet.version) == (None, 1)
        await session.commit()
        async with db.transaction() as other:
            await update_pet(other, rex, PetUpdate(color="newer"))

        pet.color = "older"
        with pytest.raises(StaleDataError):
            await session.commit()


UPSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


async def test_rows_are_put_back_after_an_insert_that_changes_rows(db: Database) -> None:
    rex, *_ = await ids_of(db)
    async with db.session() as session:
        pet = await get_pet(session, rex)
        async with rolled_back(session):
            values = {**pet.model_dump(), "notes": "inserted"}
            changes = {"notes": "upserted", "version": 2}
            if db.engine.dialect.name in UPSERTS:
                insertion: Any = UPSERTS[db.engine.dialect.name](Pet).values(values)
                insertion = insertion.on_conflict_do_update(index_elements=["id"], set_=changes)
            else:
                insertion = mysql.insert(Pet).values(values).on_duplicate_key_update(changes)
            await session.exec(insertion)
            assert (await get_pet(session, rex)).notes == "upserted"

        assert (pet.notes, pet.version) == (None, 1)


async def test_a_change_of_an_aliased_table_is_undone(db: Database) -> None:
    rex, *_ = await ids_of(db)
    table = sa.inspect(Pet).local_table.alias("p")
    async with db.session() as session:
        pet = await get_pet(session, rex)
        async with rolled_back(session):
            await session.exec(sa.update(table).values(name="W", version=table.c.version + 1))
            assert (await get_pet(session, rex)).name == "W"

        assert (pet.name, pet.version) == ("Rex", 1)


@pytest.mark.parametrize("engine_name", ["sqlite", "postgresql"], indirect=True)  # MariaDB has no UPDATE ... RETURNING.
async def test_a_change_by_a_text_with_columns_is_undone(db: Database) -> None:
    rex, *_ = await ids_of(db)
    text = sa.text("UPDATE pet SET name = 'W', version = version + 1 RETURNING id, name, version")
    query = select(Pet).from_statement(text.columns(col(Pet.id), col(Pet.name), col(Pet.version)))
    async with db.session() as session:
        pet = await get_pet(session, rex)
        async with rolled_back(session):
            await session.exec(query, execution_options={"populate_existing": True})
            assert pet.name == "W"

        assert (pet.name, pet.version) == ("Rex", 1)


@pytest.mark.parametrize("change", ["insert", "update"])
async def test_what_the_first_statement_of_a_session_did_is_undone(db: Database, change: str) -> None:
    await ids_of(db)
    async with db.session() as session:
        if change == "insert":
            await create_pets(session, [PetCreate(name="Lost")])
        else:
            await session.exec(sa.update(Pet).values(name="Lost", version=Pet.version + 1))
        pet = (await list_pets(session, order_by="-id")).items[0]
        assert pet.name == "Lost"

    assert {"name", "version"} <= sa.inspect(pet).expired_attributes


async def test_an_edit_from_before_the_session_stays_after_its_commit(db: Database) -> None:
    async with db.transaction() as session:
        pet = await create_pet(session, PetCreate(name="Rex"))
    pet.name = "Max"

    async with db.session() as session:
        session.add(pet)
        await session.commit()

    assert (pet.name, pet.version) == ("Max", 2)


@pytest.mark.parametrize("harmless", ["SELECT 1", "  select 1", "SAVEPOINT own", "ROLLBACK TO own"])
async def test_a_text_that_changes_no_row_expires_nothing_at_a_rollback(db: Database, harmless: str) -> None:
    async with db.transaction() as session:
        pet_id = (await create_pet(session, PetCreate(name="Rex"))).id

    async with db.transaction() as session:
        async with session.begin_nested() as nested:
            await session.exec(sa.text("SAVEPOINT own"))
            await session.exec(sa.text(harmless))
            pet = await get_pet(session, pet_id)
            await nested.rollback()

        assert pet.__dict__["name"] == "Rex"
