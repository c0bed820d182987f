"""Imports, and other transactions that write the same rows at the same time."""

import asyncio
import io
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    ImportReport,
    Pet,
    PetCreate,
    PetUpdate,
    TransactionConflictError,
    UserCreate,
    UserUpdate,
    create_pet,
    create_pets,
    create_user,
    delete_pet,
    delete_user,
    find_user_by_email,
    import_pets,
    list_pets,
    update_pet,
    update_user,
)
from sqlmodel_alembic_async.services.csv_files import file_format

from ...stress.measures import becomes_true

CHIP = "276098102345678"
PATIENCE = 20.0

on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)

Work = Callable[[AsyncSession], Awaitable[Any]]


def rows(*lines: str) -> io.StringIO:
    return io.StringIO("".join(f"{line}\r\n" for line in lines))


async def waits(db: Database) -> bool:
    """Tell whether a transaction waits for a lock; on SQLite it waits in a queue, before it begins."""
    query = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'",
        # InnoDB's own table of waits is not renewed while others look at it.
        "mysql": "SELECT count(*) FROM information_schema.processlist"
        " WHERE db = database() AND id <> connection_id() AND command = 'Query' AND time_ms > 100",
    }.get(db.engine.dialect.name)
    if query is None:
        await asyncio.sleep(0)
        return True
    async with db.engine.connect() as connection:
        return bool((await connection.execute(text(query))).scalar_one())


async def while_another_writes(db: Database, other: Work, work: Work) -> Any:
    """Begin the other transaction, see the work wait for it, commit it, and return what comes of the work."""
    async with db.transaction() as session:
        await other(session)
        task = asyncio.create_task(db.run_transaction(work))
        assert await becomes_true(lambda: waits(db), within=PATIENCE)
        assert not task.done()
    async with asyncio.timeout(PATIENCE):
        return await task


async def pets_of(db: Database) -> list[Pet]:
    async with db.reading() as session:
        return (await list_pets(session, order_by="id", archived=None)).items


def importing(*lines: str) -> Work:
    return lambda session: import_pets(session, rows(*lines))


def counts(report: ImportReport) -> tuple[int, int, int, int]:
    return report.created, report.updated, report.unchanged, report.rejected


# Stored rows that change meanwhile.


async def test_an_import_writes_nothing_over_a_pet_that_has_changed_since_it_was_read(db: Database) -> None:
    async with db.transaction() as session:
        rex = await create_pet(session, PetCreate(name="Rex", external_ref="p1"))

    report = await while_another_writes(
        db,
        lambda session: update_pet(session, rex.id, PetUpdate(birth_date=date(2014, 5, 1))),
        importing("external_ref,birth_date,color", "p1,2014,brown"),  # An estimate, worse than the day.
    )

    assert counts(report) == (0, 1, 0, 0)
    pet = (await pets_of(db))[0]
    assert (pet.birth_date, pet.birth_date_estimated, pet.color, pet.version) == (date(2014, 5, 1), False, "brown", 3)


async def test_an_import_writes_nothing_over_an_owner_who_has_changed_since_being_read(db: Database) -> None:
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))

    await while_another_writes(
        db,
        lambda session: update_user(session, ada.id, UserUpdate(email="new@example.com", city="Bonn")),
        importing("owner_name,owner_email,owner_phone", "Ada,ada@example.com,030 12345"),
    )

    async with db.reading() as session:
        old = await find_user_by_email(session, "ada@example.com")
        new = await find_user_by_email(session, "new@example.com")
    assert old is not None
    assert new is not None
    assert (old.id == ada.id, old.phone) == (False, "030 12345")
    assert (new.id, new.phone, new.version) == (ada.id, None, 2)


async def test_a_pet_that_was_deleted_meanwhile_is_imported_as_a_new_one(db: Database) -> None:
    async with db.transaction() as session:
        rex = await create_pet(session, PetCreate(name="Rex", external_ref="p1"))

    report = await while_another_writes(
        db, lambda session: delete_pet(session, rex.id), importing("name,external_ref", "Max,p1")
    )

    assert counts(report) == (1, 0, 0, 0)
    assert [pet.name for pet in await pets_of(db)] == ["Max"]


@on_servers
async def test_a_transaction_that_is_not_repeated_is_told_to_try_again(db: Database) -> None:
    async with db.transaction() as session:
        rex = await create_pet(session, PetCreate(name="Rex", external_ref="p1"))

    async with db.transaction() as other:
        await update_pet(other, rex.id, PetUpdate(color="red"))

        async def work() -> None:
            async with db.transaction() as session:
                await import_pets(session, rows("external_ref,notes", "p1,good"))

        task = asyncio.create_task(work())
        assert await becomes_true(lambda: waits(db), within=PATIENCE)
    with pytest.raises(TransactionConflictError, match="changed or deleted a row in the meantime: try again"):
        await task

    pet = (await pets_of(db))[0]
    assert (pet.color, pet.notes, pet.version) == ("red", None, 2)


@on_sqlite
async def test_a_plain_session_does_not_write_over_what_changed_since_it_read(db: Database) -> None:
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex", external_ref="p1"))

    def change_meanwhile(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("UPDATE"):
            other = sqlite3.connect(str(db.url.database), isolation_level=None)
            other.execute("UPDATE pet SET color = 'red', version = version + 1")
            other.close()

    async with db.session() as session:
        event.listen(db.engine.sync_engine, "before_cursor_execute", change_meanwhile)
        with pytest.raises(TransactionConflictError):
            await import_pets(session, rows("external_ref,notes", "p1,good"))
        event.remove(db.engine.sync_engine, "before_cursor_execute", change_meanwhile)
        await session.rollback()

    pet = (await pets_of(db))[0]
    assert (pet.color, pet.notes) == ("red", None)


@on_servers
async def test_an_import_locks_only_what_it_changes(db: Database) -> None:
    async with db.transaction() as session:
        pets = [await create_pet(session, PetCreate(name="Rex", external_ref=f"p{number}")) for number in range(4)]
        ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))

    async with db.transaction() as session, asyncio.timeout(PATIENCE):
        lines = ("external_ref,color,owner_email,owner_city", "p1,brown,ada@example.com,Bonn", "p2,,,")
        assert counts(await import_pets(session, rows(*lines))) == (0, 1, 1, 0)

        async def work() -> None:
            async with db.transaction() as other:
                for pet in (pets[0], pets[2], pets[3]):
                    await update_pet(other, pet.id, PetUpdate(color="red"))
                await create_pet(other, PetCreate(name="Max", external_ref="p5"))
                await create_user(other, UserCreate(name="Bob"))

        await asyncio.create_task(work())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), db.session() as other:
                await update_user(other, ada.id, UserUpdate(city="Rome"))

    assert [pet.color for pet in await pets_of(db)] == ["red", "brown", "red", "red", None]


@on_servers
async def test_an_import_of_nearly_all_rows_does_not_lock_the_others(db: Database) -> None:
    async with db.transaction() as session:
        await create_pets(session, (PetCreate(name="Rex", external_ref=f"p{number}") for number in range(1001)))
        last = (await list_pets(session, order_by="-id", limit=1)).items[0]

    async with db.transaction() as session, asyncio.timeout(PATIENCE):
        lines = [f"p{number},brown" for number in range(1000)]
        assert (await import_pets(session, rows("external_ref,color", *lines))).updated == 1000

        async def work() -> None:
            async with db.transaction() as other:
                await update_pet(other, last.id, PetUpdate(color="red"))
                await create_pet(other, PetCreate(name="Max", external_ref="p5000"))

        await asyncio.create_task(work())


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_an_owner_whom_an_import_changes_can_get_a_pet_meanwhile(db: Database) -> None:
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))

    async with db.transaction() as session, asyncio.timeout(PATIENCE):
        await import_pets(session, rows("owner_email,owner_city", "ada@example.com,Bonn"))

        async def work() -> None:
            async with db.transaction() as other:
                await create_pet(other, PetCreate(name="Rex", owner_id=ada.id))

        await asyncio.create_task(work())


async def test_imports_of_the_same_rows_in_opposite_orders_all_end(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_format, "BATCH_SIZE", 1)
    names = [f"p{number}" for number in range(20)]
    async with db.transaction() as session:
        for name in names:
            await create_pet(session, PetCreate(name="Rex", external_ref=name))

    async def run(column: str, order: list[str]) -> None:
        await db.run_transaction(importing(f"external_ref,{column}", *(f"{name},x" for name in order)))

    async with asyncio.timeout(60):
        await asyncio.gather(run("color", names), run("breed", names[::-1]))

    assert {(pet.color, pet.breed) for pet in await pets_of(db)} == {("x", None)}
    async with asyncio.timeout(60):
        await asyncio.gather(run("color", names), run("notes", names[::-1]))
    assert {(pet.color, pet.notes, pet.version) for pet in await pets_of(db)} == {("x", "x", 3)}


# Keys that are stored, and owners who are deleted, meanwhile.


@pytest.mark.parametrize(
    "lines",
    [
        ("name,external_ref", "Rex,p1", "Tom,p2"),
        ("name,microchip", f"Rex,{CHIP}"),
        ("owner_name,owner_email", "Ada,ada@example.com"),
        ("owner_name,owner_external_ref", "Ada,u1"),
        ("name,owner_name,owner_email", "Rex,Ada,ada@example.com"),
    ],
)
@pytest.mark.parametrize("reads_before", [False, True])
async def test_of_two_imports_at_once_the_second_finds_what_the_first_has_stored(
    db: Database, lines: tuple[str, ...], reads_before: bool
) -> None:
    async def work(session: AsyncSession) -> ImportReport:
        if reads_before:
            await list_pets(session)  # MariaDB shows what there is by now until the transaction ends.
        return await import_pets(session, rows(*lines))

    report = await while_another_writes(db, importing(*lines), work)

    unkeyed = lines[0] == "name,owner_name,owner_email"
    assert counts(report) == ((1, 0, 0, 0) if unkeyed else (0, 0, len(lines) - 1, 0))


async def test_a_key_that_is_given_to_another_pet_meanwhile_is_told_in_the_end(db: Database) -> None:
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex", microchip=CHIP))
        tom = await create_pet(session, PetCreate(name="Tom"))

    work = importing("name,external_ref,microchip", f"Rex,p1,{CHIP}")
    with pytest.raises(ValueError, match="matches a different row than external_ref"):
        await while_another_writes(db, lambda session: update_pet(session, tom.id, PetUpdate(external_ref="p1")), work)


async def test_an_owner_who_is_deleted_meanwhile_is_imported_as_a_new_one(db: Database) -> None:
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))

    report = await while_another_writes(
        db,
        lambda session: delete_user(session, ada.id),
        importing("name,owner_name,owner_email", "Rex,Ada,ada@example.com"),
    )

    assert counts(report) == (1, 0, 0, 0)
    owner_id = (await pets_of(db))[0].owner_id
    assert owner_id is not None
    assert owner_id > (ada.id or 0)


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_key_that_a_snapshot_does_not_show_is_a_conflict_too(
    migrated_url: URL, db: Database, level: str
) -> None:
    lines = ("name,external_ref", "Rex,p1")
    async with Database(migrated_url, isolation_level=level) as strict:
        report = await while_another_writes(strict, importing(*lines), importing(*lines))

    assert counts(report) == (0, 0, 1, 0)


_BY_CASE = {
    "sqlite": ["CREATE UNIQUE INDEX by_case ON pet (external_ref COLLATE NOCASE)"],
    "postgresql": [
        "ALTER TABLE pet DROP CONSTRAINT uq_pet_external_ref",
        "CREATE UNIQUE INDEX uq_pet_external_ref ON pet (lower(external_ref))",
    ],
    "mariadb": ["ALTER TABLE pet MODIFY external_ref VARCHAR(64) COLLATE utf8mb4_general_ci"],
}


@pytest.mark.parametrize("line", ["Tom,P1", "Tom,p1"])
async def test_a_rule_of_the_hosts_own_that_a_file_breaks_is_no_conflict(
    empty_url: URL, engine_name: str, line: str
) -> None:
    async with Database(empty_url) as db:
        await db.create_tables()
        async with db.engine.begin() as connection:
            for statement in _BY_CASE[engine_name]:
                await connection.exec_driver_sql(statement)
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Max", external_ref="Q1"))
        attempts = 0

        async def work(session: AsyncSession) -> None:
            nonlocal attempts
            attempts += 1
            await import_pets(session, rows("name,external_ref", "Rex,q1" if line == "Tom,p1" else "Rex,p1", line))

        with pytest.raises(AlreadyExistsError, match="external_ref"):
            await db.run_transaction(work)

    assert attempts == 1


async def test_what_the_session_has_not_written_yet_breaks_its_own_rules(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex", external_ref="p1"))
    session.add(Pet(name="Tom", external_ref="p1"))

    with pytest.raises(AlreadyExistsError):
        await import_pets(session, rows("name,external_ref", "Max,p2"))
