"""Conflicts between real transactions, and what becomes of the work that meets them."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    PetCreate,
    PetUpdate,
    TransactionConflictError,
    create_pet,
    get_pet,
    list_pets,
    schema_locks,
    update_pet,
)

SERVERS = ["postgresql", "mariadb"]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody sleeps; how long it would have been is noted."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def note(delay: float, result: Any = None) -> Any:
        if delay:
            waits.append(delay)
        return await sleep(0, result)

    monkeypatch.setattr(asyncio, "sleep", note)
    return waits


async def two_pets(db: Database) -> list[int]:
    async with db.transaction() as session:
        pets = [await create_pet(session, PetCreate(name=name, weight_g=100)) for name in ("a", "b")]
    return [pet.id for pet in pets if pet.id is not None]


async def weights(db: Database) -> list[int | None]:
    async with db.reading() as session:
        return [pet.weight_g for pet in (await list_pets(session)).items]


async def grow(session: AsyncSession, pet_id: int, by: int) -> None:
    pet = await get_pet(session, pet_id)
    assert pet.weight_g is not None
    await update_pet(session, pet_id, PetUpdate(weight_g=pet.weight_g + by))


@pytest.mark.parametrize("engine_name", SERVERS, indirect=True)
async def test_the_victim_of_a_deadlock_does_its_work_again(db: Database) -> None:
    pets = await two_pets(db)
    ready = [asyncio.Event(), asyncio.Event()]
    attempts = [0, 0]
    options: dict[str, Any] = {}
    if db.engine.dialect.name == "postgresql":  # It looks for deadlocks once a second only.
        options = {"connect_args": {"server_settings": {"deadlock_timeout": "20ms"}}}

    async with Database(db.url, **options) as impatient:

        async def unit(mine: int) -> None:
            async def work(session: AsyncSession) -> None:
                attempts[mine] += 1
                await update_pet(session, pets[mine], PetUpdate(weight_g=200 + mine))
                ready[mine].set()
                await ready[1 - mine].wait()
                await update_pet(session, pets[1 - mine], PetUpdate(weight_g=200 + mine))

            await impatient.run_transaction(work)

        await asyncio.gather(unit(0), unit(1))

    assert sorted(attempts) == [1, 2]
    assert await weights(db) == [200 + attempts.index(2)] * 2


async def test_no_serializable_update_is_lost_among_many(db: Database) -> None:
    [pet, _] = await two_pets(db)

    async with Database(db.url, isolation_level="SERIALIZABLE") as serializable:
        await asyncio.gather(
            *(serializable.run_transaction(lambda session: grow(session, pet, 1), attempts=200) for _ in range(16))
        )

    assert await weights(db) == [116, 100]


async def test_serializable_transactions_do_not_skew_what_they_read_together(db: Database) -> None:
    pets = await two_pets(db)
    both_have_read = asyncio.Barrier(2)
    attempts = [0, 0]

    async with Database(db.url, isolation_level="SERIALIZABLE") as serializable:

        async def halve_mine_if_together_heavy(mine: int) -> None:
            async def work(session: AsyncSession) -> None:
                attempts[mine] += 1
                total = sum(pet.weight_g or 0 for pet in (await list_pets(session)).items)
                if max(attempts) == 1 and db.engine.dialect.name != "sqlite":  # There, one comes after the other.
                    await both_have_read.wait()
                if total >= 200:
                    await update_pet(session, pets[mine], PetUpdate(weight_g=50))

            await serializable.run_transaction(work, attempts=50)

        await asyncio.gather(halve_mine_if_together_heavy(0), halve_mine_if_together_heavy(1))

    assert sorted(await weights(db)) == [50, 100]


@pytest.mark.parametrize("engine_name", SERVERS, indirect=True)
async def test_a_row_that_changed_since_the_snapshot_is_read_again(db: Database) -> None:
    [pet, _] = await two_pets(db)
    attempts = 0
    options: dict[str, Any] = {"isolation_level": "REPEATABLE READ"}
    if db.engine.dialect.name == "mysql":  # Error 1020 instead of a lost update; MariaDB 11.6 has it on by itself.
        options["connect_args"] = {"init_command": "SET SESSION innodb_snapshot_isolation = ON"}

    async with Database(db.url, **options) as repeatable:

        async def work(session: AsyncSession) -> None:
            nonlocal attempts
            attempts += 1
            await create_pet(session, PetCreate(name="c", weight_g=attempts))
            old = (await get_pet(session, pet)).weight_g
            assert old is not None
            if attempts == 1:
                async with db.transaction() as other:
                    await grow(other, pet, 10)
            await update_pet(session, pet, PetUpdate(weight_g=old + 1))

        await repeatable.run_transaction(work)

    assert attempts == 2
    assert await weights(db) == [111, 100, 2]


@pytest.mark.parametrize(
    ("engine_name", "options"),
    [
        ("postgresql", {"connect_args": {"server_settings": {"lock_timeout": "50ms"}}}),
        ("mariadb", {"connect_args": {"init_command": "SET SESSION innodb_lock_wait_timeout = 1"}}),
    ],
    indirect=["engine_name"],
)
async def test_a_lock_that_is_held_too_long_is_tried_again(db: Database, options: dict[str, Any]) -> None:
    [pet, _] = await two_pets(db)
    attempts = 0

    async with Database(db.url, **options) as impatient, db.session() as holder:
        await update_pet(holder, pet, PetUpdate(weight_g=1))

        async def work(session: AsyncSession) -> None:
            nonlocal attempts
            attempts += 1
            await create_pet(session, PetCreate(name="c", weight_g=attempts))
            if attempts == 2:
                await holder.commit()
            await grow(session, pet, 1)

        await impatient.run_transaction(work)

    assert attempts == 2
    assert await weights(db) == [2, 100, 2]


_HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE pet SET weight_g = weight_g + 1, version = version + 1")
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
print("released", flush=True)
"""


class Holder:
    """Another process, which holds SQLite's write lock."""

    def __init__(self, url: URL) -> None:
        assert url.database is not None
        command = [sys.executable, "-c", _HOLD_LOCK, url.database]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Holder":
        self.hears("held")
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate("")

    def hears(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == word + "\n"

    def release(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.hears("released")


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_a_lock_of_another_process_is_waited_for(db: Database) -> None:
    [pet, _] = await two_pets(db)

    with Holder(db.url) as holder:
        work = asyncio.create_task(db.run_transaction(lambda session: grow(session, pet, 10), attempts=1))
        done, _ = await asyncio.wait([work], timeout=0.1)
        assert not done
        assert await weights(db) == [100, 100]
        holder.release()
        await work

    assert await weights(db) == [111, 101]


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_a_lock_of_another_process_that_is_held_too_long_is_tried_again(
    db: Database, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_locks, "SQLITE_LOCK_TIMEOUT", 0)
    [pet, _] = await two_pets(db)

    async with Database(db.url, connect_args={"timeout": 0.01}) as impatient:
        with Holder(db.url) as holder:
            with pytest.raises(TransactionConflictError):
                await impatient.run_transaction(lambda session: grow(session, pet, 10), attempts=3)
            assert len(waits) == 2
            with pytest.raises(TransactionConflictError):
                await impatient.create_tables()
            holder.release()
        await impatient.run_transaction(lambda session: grow(session, pet, 10))

    assert await weights(db) == [111, 101]


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_a_commit_that_finds_the_file_busy_is_done_again(empty_url: URL, waits: list[float]) -> None:
    assert empty_url.database is not None
    attempts = 0

    async with Database(empty_url, connect_args={"timeout": 0.01}) as db:
        # Without WAL a COMMIT waits for every reader.
        event.listen(db.engine.sync_engine, "connect", _without_wal)
        await db.create_tables()
        [pet, _] = await two_pets(db)
        with contextlib.closing(sqlite3.connect(empty_url.database, isolation_level=None)) as reader:
            assert reader.execute("PRAGMA journal_mode").fetchone() == ("delete",)
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM pet").fetchone() == (2,)

            async def work(session: AsyncSession) -> None:
                nonlocal attempts
                attempts += 1
                await grow(session, pet, 1)
                if attempts == 3:
                    reader.execute("COMMIT")

            await db.run_transaction(work)

        assert attempts == 3
        assert await weights(db) == [101, 100]


def _without_wal(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = DELETE")
    cursor.close()


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_a_session_that_begins_to_write_after_others_did_is_told_to_try_again(db: Database) -> None:
    [pet, _] = await two_pets(db)

    async with db.session() as session:
        await get_pet(session, pet)
        async with db.transaction() as other:
            await grow(other, pet, 1)
        with pytest.raises(TransactionConflictError):
            await update_pet(session, pet, PetUpdate(weight_g=7))
        await session.rollback()
        await grow(session, pet, 1)
        await session.commit()

    assert await weights(db) == [102, 100]
