"""All that is SQLite's own."""

import asyncio
import math
import os
import sqlite3
import stat
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sqlmodel_alembic_async import (
    Database,
    DatabaseUnavailableError,
    PetCreate,
    StorageError,
    TransactionConflictError,
    UserCreate,
    count_pets,
    create_pet,
    create_user,
    engines,
    list_pets,
)
from sqlmodel_alembic_async.engines.pools import SQLitePool
from sqlmodel_alembic_async.engines.sqlite.connection import Connection

from . import files

# pytest looks for a fixture among the names of the test's own module.
path = files.path
other = files.other


async def pragma(db: Database, name: str) -> object:
    async with db.engine.connect() as connection:
        return (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()


async def test_every_connection_is_set_up(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path}/x.db") as db:
        assert await pragma(db, "foreign_keys") == 1
        assert await pragma(db, "journal_mode") == "wal"
        assert await pragma(db, "synchronous") == 2
        assert await pragma(db, "trusted_schema") == 0


@pytest.mark.parametrize(("synchronous", "level"), [("NORMAL", 1), ("FULL", 2), ("EXTRA", 3)])
async def test_what_a_power_failure_may_cost_is_a_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synchronous: str, level: int
) -> None:
    async with Database(f"sqlite:///{tmp_path}/x.db", synchronous=synchronous) as db:
        assert await pragma(db, "synchronous") == level

    monkeypatch.setenv("SQLITE_SYNCHRONOUS", synchronous)
    async with Database(f"sqlite:///{tmp_path}/x.db") as db:
        assert await pragma(db, "synchronous") == level
        async with db.transaction() as session:
            assert (await session.exec(text("PRAGMA synchronous"))).scalar() == level


async def test_a_choice_that_could_cost_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="NORMAL, FULL, EXTRA"):
        await Database(f"sqlite:///{tmp_path}/x.db", synchronous="OFF").create_tables()

    monkeypatch.setenv("SQLITE_SYNCHRONOUS", "OFF")
    with pytest.raises(ValueError, match="sqlite_synchronous"):
        await Database(f"sqlite:///{tmp_path}/x.db").create_tables()
    assert list(tmp_path.iterdir()) == []


async def test_a_new_file_is_private(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path}/x.db") as db:
        await db.create_tables()

        modes = {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}

    assert modes == {0o600}


async def test_a_file_keeps_the_mode_it_has(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch(0o644)
    (tmp_path / "x.db").chmod(0o644)

    async with Database(f"sqlite:///{tmp_path}/x.db") as db:
        await db.create_tables()

    assert stat.S_IMODE((tmp_path / "x.db").stat().st_mode) == 0o644


async def test_a_uri_is_passed_on(tmp_path: Path) -> None:
    async with Database(f"sqlite:///file:{tmp_path}/x.db?mode=rwc&uri=true") as db:
        await db.create_tables()

    assert (tmp_path / "x.db").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite+aiosqlite://"])
async def test_a_database_in_memory_is_shared_by_all_sessions_and_gone_when_disposed(url: str) -> None:
    db, other = Database(url), Database(url)
    await db.create_tables()
    await other.create_tables()

    async def add(number: int) -> None:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name=f"Pet {number}"))

    async def fail() -> None:
        with pytest.raises(KeyError):
            async with db.transaction() as session:
                await create_pet(session, PetCreate(name="Lost"))
                raise KeyError

    await asyncio.gather(*(add(number) for number in range(50)), *(fail() for _ in range(20)))
    async with db.reading() as session, other.reading() as others:
        assert await count_pets(session) == 50
        assert await count_pets(others) == 0
    await other.dispose()

    await db.dispose()
    await db.create_tables()
    async with db.reading() as session:
        assert await count_pets(session) == 0
    await db.dispose()


async def test_a_writer_waits_for_another_one_and_gives_up_with_a_conflict(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    async with Database(url) as db, Database(url, connect_args={"timeout": 0.05}) as impatient:
        await db.create_tables()
        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Ada"))

            with pytest.raises(TransactionConflictError):
                async with impatient.transaction() as waiting:
                    await count_pets(waiting)
            async with impatient.reading() as reader:
                assert await count_pets(reader) == 0


async def test_a_hand_made_session_begins_plainly(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path}/x.db") as db, db.session() as idle:
        await db.create_tables()
        await count_pets(idle)

        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Rex"))

        assert await count_pets(idle) == 0
        await idle.rollback()
        assert await count_pets(idle) == 1


async def test_an_inner_savepoint_ends_with_the_outer_transaction(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path}/x.db") as db:
        await db.create_tables()
        with pytest.raises(KeyError):
            async with db.transaction() as session:
                async with session.begin_nested():
                    await create_pet(session, PetCreate(name="Rex"))
                raise KeyError

        async with db.reading() as session:
            assert (await list_pets(session)).items == []


async def test_a_reader_becomes_a_writer_again(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path}/x.db", pool_size=1, max_overflow=0) as db:
        await db.create_tables()
        for _ in range(2):
            with pytest.raises(StorageError):
                async with db.reading() as session:
                    await session.exec(text("DELETE FROM pet"))
            async with db.transaction() as session:
                await create_pet(session, PetCreate(name="Rex"))


async def test_a_commit_that_finds_the_database_busy_leaves_nothing_behind() -> None:
    async with Database("sqlite://", connect_args={"timeout": 0.05}) as db:
        await db.create_tables()
        async with db.reading(snapshot=True) as reader:
            await count_pets(reader)
            with pytest.raises(TransactionConflictError):
                async with db.transaction() as session:
                    await create_pet(session, PetCreate(name="Lost"))

        for _ in range(3):
            async with db.transaction() as session:
                await create_pet(session, PetCreate(name="Rex"))
        async with db.reading() as reader:
            assert await count_pets(reader) == 3


async def test_storage_that_can_not_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, and it is long enough to be read as one " * 20)
    for name, reason in (("missing/x.db", "cannot be opened"), ("text.db", "not a database")):
        async with Database(f"sqlite:///{tmp_path / name}") as db:
            with pytest.raises(StorageError, match=reason):
                async with db.transaction():
                    pass


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///file:{}?uri=true",
        "sqlite:///file:{}?mode=rwc&uri=true",
        "sqlite:///file://{}?uri=true",
        "sqlite:///{}?uri=true",
    ],
)
async def test_a_file_that_a_uri_names_is_its_users_alone(tmp_path: Path, url: str) -> None:
    path = tmp_path / "with space" / "x.db"
    path.parent.mkdir()
    name = str(path).replace(" ", "%20") if "file:" in url else str(path)

    async with Database(url.format(name)) as db:
        await db.create_tables()
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Rex"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert set(modes) == {"x.db", "x.db-wal", "x.db-shm"}
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("mode", ["rw", "ro"])
async def test_a_uri_that_forbids_to_make_the_file_makes_none(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.db"

    with pytest.raises(StorageError):
        await Database(f"sqlite:///file:{path}?mode={mode}&uri=true").create_tables()

    assert not path.exists()


@pytest.mark.parametrize("name", ["creator", "async_creator"])
def test_an_engine_that_makes_its_connections_itself_is_refused_at_once(tmp_path: Path, name: str) -> None:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path}/x.db", **{name: lambda: aiosqlite.connect(tmp_path / "x.db")}
    )

    with pytest.raises(TypeError, match="without creator or async_creator"):
        engines.prepare(engine)


async def test_a_lock_that_waiting_can_not_resolve_fails_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    async with Database(url) as db, Database(url, connect_args={"timeout": 20}) as patient:
        await db.create_tables()
        async with db.transaction() as writer, patient.session() as reader:
            await create_pet(writer, PetCreate(name="Rex"))
            assert await count_pets(reader) == 0  # What it has read is of before the writer's COMMIT.
            began = time.perf_counter()

            with pytest.raises(TransactionConflictError):
                await create_pet(reader, PetCreate(name="Max"))

            assert time.perf_counter() - began < 5


async def test_a_new_file_is_waited_for_while_another_connection_writes_it(tmp_path: Path) -> None:
    # SQLite itself does not wait here: to switch to WAL, it has a lock that the writer needs.
    with closing(sqlite3.connect(tmp_path / "x.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.3, other.rollback)

        async with Database(f"sqlite:///{tmp_path}/x.db") as db:
            assert await pragma(db, "journal_mode") == "wal"


async def test_a_new_file_that_another_connection_keeps_is_waited_for_no_longer_than_told(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.perf_counter()

        with pytest.raises(TransactionConflictError):
            await Database(f"sqlite:///{tmp_path}/x.db", connect_args={"timeout": 0.3}).create_tables()

        assert 0.3 <= time.perf_counter() - began < 5


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite://", "sqlite:///:memory:"])
async def test_a_database_in_memory_outlives_its_connections(url: str) -> None:
    async with Database(url, poolclass=NullPool) as db:
        await db.create_tables()
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Rex"))

        async with db.reading() as session:
            assert await count_pets(session) == 1


@pytest.mark.parametrize("level", ["OFF", "normal", "", "FULL; DROP TABLE pet"])
def test_an_unknown_level_of_synchronous_is_refused(level: str) -> None:
    with pytest.raises(ValueError, match="must be one of NORMAL, FULL, EXTRA"):
        engines.create_engine("sqlite://", synchronous=level)


async def test_a_journal_mode_that_can_not_be_set_is_an_error(path: str, other: sqlite3.Connection) -> None:
    other.execute("BEGIN EXCLUSIVE")
    engine = engines.create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.05})

    with pytest.raises(OperationalError, match="locked"):
        await engine.connect()

    await engine.dispose()


async def test_a_name_that_is_no_uri_is_the_files_name_as_it_is(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path}/50%2525.db?uri=true") as db:
        await db.create_tables()
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}

    assert modes == dict.fromkeys(("50%25.db", "50%25.db-wal", "50%25.db-shm"), 0o600)


async def test_a_writer_waits_for_another_one_as_long_as_the_setting_says(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path}/x.db", lock_timeout=0.2, pool_timeout=60) as db:
        await db.create_tables()
        for _ in range(2):
            async with db.transaction():
                waiting = asyncio.create_task(db.run_transaction(count_pets))
                with pytest.raises(DatabaseUnavailableError, match=r"still writing: .* increase lock_timeout"):
                    await waiting
            await db.dispose()  # The new pool has the same setting.


async def test_a_writer_waits_for_another_process_as_long_as_the_setting_says(
    path: str, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLITE_LOCK_TIMEOUT", "0.2")
    async with Database(f"sqlite:///{path}") as db:
        await db.create_tables()
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(10):
            with pytest.raises(TransactionConflictError):
                await db.run_transaction(count_pets, attempts=1)


async def test_without_a_setting_a_writer_waits_for_a_minute(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path}/x.db") as db:
        pool = db.engine.pool
        assert isinstance(pool, SQLitePool)
        assert pool.writer.timeout() == 60
        async with db.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, Connection)
        assert driver._lock_timeout == 60


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
def test_a_lock_timeout_that_is_no_number_of_seconds_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="lock_timeout must be"):
        engines.create_engine("sqlite://", lock_timeout=seconds)


@pytest.mark.parametrize("seconds", ["1", True, timedelta(1)])
def test_a_lock_timeout_of_another_type_is_refused(seconds: object) -> None:
    with pytest.raises(TypeError, match="lock_timeout must be"):
        engines.create_engine("sqlite://", lock_timeout=seconds)


async def test_an_engine_with_another_pool_waits_for_other_processes_only(path: str, other: sqlite3.Connection) -> None:
    engine = engines.create_engine(f"sqlite:///{path}", poolclass=NullPool, lock_timeout=0.1)
    async with engine.connect() as connection:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            await connection.exec_driver_sql("INSERT INTO number VALUES (1)")
    await engine.dispose()
