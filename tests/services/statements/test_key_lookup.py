"""Rows found by many values at once."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    User,
    create_pet,
    create_pets,
    import_pets,
    list_users,
    update_pet,
)
from sqlmodel_alembic_async.services.csv_files import file_format
from sqlmodel_alembic_async.services.statements import key_lookup

from ...conftest import Statements

KEYED = "name,external_ref,microchip\n" + "".join(f"Rex,p{number},{number:09}\n" for number in range(1500))


async def read_without_an_index(session: AsyncSession) -> int:
    """Return how many rows of the table this transaction has read to find others."""
    query = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'pet'"
    return int((await session.exec(text(query))).scalar_one())  # type: ignore[call-overload]


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
@pytest.mark.parametrize("small", [0, 8])
async def test_a_plan_that_was_made_for_few_rows_is_right_for_many(
    empty_url: URL, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    # PostgreSQL makes the plan that it keeps after five executions, here with few rows in the table or none.
    monkeypatch.setattr(file_format, "BATCH_SIZE", 100)
    async with Database(empty_url) as db:
        await db.create_tables()
        async with db.transaction() as session:
            for _ in range(small):
                await import_pets(session, io.StringIO("name,external_ref,microchip\nTom,t1,A123456789\n"))
            await import_pets(session, io.StringIO(KEYED))
            again = await import_pets(session, io.StringIO(KEYED))

            assert again.unchanged == 1500
            assert await read_without_an_index(session) == 0


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
@pytest.mark.parametrize("query", [key_lookup._columns, key_lookup._rows])
@pytest.mark.parametrize(("name", "index"), [("external_ref", "uq_pet_external_ref"), ("id", "pk_pet")])
async def test_the_kept_plan_reads_the_index_of_the_column(db: Database, name: str, index: str, query: Any) -> None:
    async with db.transaction() as session:
        await create_pets(session, (PetCreate(name="Rex", external_ref=f"p{number}") for number in range(100)))
        dialect = session.get_bind().dialect
        statement = query(Pet, name, "postgresql").compile(dialect=dialect)
        connection = await session.connection()
        await connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.exec_driver_sql(f"PREPARE looked_up AS {statement}")
        plan = await connection.exec_driver_sql("EXPLAIN EXECUTE looked_up ('{1, 2}', 1)")

        assert f"Index Scan using {index} " in "".join(plan.scalars())


async def test_rows_are_found_by_values_of_which_some_are_missing(session: AsyncSession) -> None:
    pets = [await create_pet(session, PetCreate(name=f"P{number}", external_ref=f"p{number}")) for number in range(3)]
    pets[1].name = "not yet written"

    found = await key_lookup.fetch_rows(session, Pet, "external_ref", ["p2", "x", "p1", "p2", "P0", "'"])
    columns = await key_lookup.fetch_columns(session, Pet, "external_ref", ["p1"])

    assert sorted(pet.name for pet in found) == ["P2", "not yet written"]
    assert all(pet in pets for pet in found)
    assert [(row["id"], row["name"], row["external_ref"]) for row in columns] == [(pets[1].id, "not yet written", "p1")]
    assert await key_lookup.fetch_rows(session, Pet, "id", []) == []


@pytest.mark.parametrize("fetch", [key_lookup.fetch_rows, key_lookup.fetch_columns])
async def test_a_look_up_does_not_wait_for_a_transaction_that_changes_the_row(
    db: Database, fetch: Callable[..., Awaitable[list[Any]]]
) -> None:
    async with db.transaction() as session:
        pet = await create_pet(session, PetCreate(name="Rex"))

    async with db.transaction() as writer, db.reading() as reader, asyncio.timeout(10):
        await update_pet(writer, pet.id, PetUpdate(name="Max"))
        [found] = await fetch(reader, Pet, "id", [pet.id])

    assert (found["name"] if isinstance(found, dict) else found.name) == "Rex"


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_sqlite_needs_no_statement_to_lock_rows(session: AsyncSession, statements: Statements) -> None:
    pet = await create_pet(session, PetCreate(name="Rex"))

    assert await statements.taken_by(key_lookup.lock(session, Pet, {pet.id: pet.version})) == 0


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_a_new_pet_does_not_wait_for_an_import_that_locks_its_owner(db: Database) -> None:
    lines = "owner_external_ref,owner_name,owner_city\no1,Ada,{}\n"
    async with db.transaction() as session:
        await import_pets(session, io.StringIO(lines.format("Rome")))
        owner = (await list_users(session)).items[0]

    async with db.transaction() as session:
        await key_lookup.lock(session, User, {owner.id: owner.version})
        async with asyncio.timeout(5), db.session() as other:
            await create_pet(other, PetCreate(name="Rex", owner_id=owner.id))
            await other.commit()
