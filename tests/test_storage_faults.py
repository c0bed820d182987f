"""Storage that is full, read-only, out of reach or damaged: said in those words, and nothing acknowledged is lost."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    DatabaseError,
    PetCreate,
    PetUpdate,
    StorageError,
    UserCreate,
    count_pets,
    create_pet,
    create_pets,
    create_user,
    delete_pet,
    get_pet,
    list_pets,
    migrations,
    stream_pets,
    transfer_pet,
    update_pet,
)

_NOBODY = 65534
_NOTES = "n" * 1500  # A row fills much of a page.


async def in_transaction(db: Database) -> None:
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))


async def in_run_transaction(db: Database) -> None:
    await db.run_transaction(lambda session: create_pet(session, PetCreate(name="Rex")))


async def in_session(db: Database) -> None:
    async with db.session() as session:
        await create_pet(session, PetCreate(name="Rex"))


async def in_creation(db: Database) -> None:
    await db.create_tables()


async def in_migration(db: Database) -> None:
    await migrations.upgrade(database=db)


async def in_reading(db: Database) -> None:
    async with db.reading() as session:
        await count_pets(session)


async def in_version(db: Database) -> None:
    await migrations.current(database=db)


WRITING = [in_transaction, in_run_transaction, in_session, in_creation, in_migration]
UNITS = [*WRITING, in_reading, in_version]
Unit = Callable[[Database], Awaitable[None]]


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A database file that was used and left; it holds the pets 0 to 299."""
    path = tmp_path / "pets.db"
    async with Database(f"sqlite:///{path}") as db:
        await migrations.upgrade(database=db)
        async with db.transaction() as session:
            owner = await create_user(session, UserCreate(name="Ada"))
            pets = (
                PetCreate(name=f"{n}", owner_id=owner.id, notes=_NOTES, external_ref=f"ref-{n}") for n in range(300)
            )
            await create_pets(session, pets)
    assert os.listdir(tmp_path) == ["pets.db"]
    return path


def left_in(file: Path) -> list[str]:
    """Return the names of the pets as any other program finds them, in a sound database."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return [name for (name,) in connection.execute("SELECT name FROM pet ORDER BY id")]


def url_of(file: Path, **options: str) -> URL:
    return URL.create("sqlite+aiosqlite", database=f"file:{file}", query={**options, "uri": "true"})


HUNDREDS = [f"{number}" for number in range(300)]


# Full.


async def allow_pages(session: AsyncSession, more: int) -> None:
    """Let the file have so many more pages than now; it holds for the connection of this session."""
    connection = await session.connection()
    pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
    free = (await connection.exec_driver_sql("PRAGMA freelist_count")).scalar_one()
    await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages - free + more}")


async def test_a_full_storage_takes_no_unit_in_half_and_loses_none_that_is_in(file: Path) -> None:
    acknowledged = list(HUNDREDS)

    async with Database(f"sqlite:///{file}") as db:
        with pytest.raises(StorageError, match="full"):
            for number in range(1000, 1100):
                async with db.transaction() as session:
                    if number == 1000:
                        await allow_pages(session, 20)
                    for half in "ab":
                        await create_pet(session, PetCreate(name=f"{number}{half}", notes=_NOTES))
                acknowledged += [f"{number}a", f"{number}b"]
        assert len(acknowledged) > len(HUNDREDS)
        async with db.reading() as session:
            assert [pet.name async for pet in stream_pets(session, order_by="id")] == acknowledged

    assert left_in(file) == acknowledged


@pytest.mark.parametrize("bulk", [False, True])
async def test_a_storage_that_is_full_takes_rows_again_once_there_is_room(file: Path, bulk: bool) -> None:
    async def fill(session: AsyncSession) -> None:
        pets = [PetCreate(name="Lost", notes=_NOTES) for _ in range(50)]
        if bulk:
            await create_pets(session, pets)
        else:
            for pet in pets:
                await create_pet(session, pet)

    async with Database(f"sqlite:///{file}") as db:
        for _ in range(3):
            with pytest.raises(StorageError, match="full"):
                async with db.transaction() as session:
                    await allow_pages(session, 10)
                    await fill(session)
        async with db.transaction() as session:
            await allow_pages(session, 1000)
            await create_pet(session, PetCreate(name="Rex"))

    assert left_in(file) == [*HUNDREDS, "Rex"]


async def test_a_storage_that_fills_up_in_a_savepoint_leaves_the_rest_to_its_caller(file: Path) -> None:
    async with Database(f"sqlite:///{file}") as db, db.transaction() as session:
        await create_pet(session, PetCreate(name="Before"))
        await allow_pages(session, 5)
        with pytest.raises(StorageError, match="full"):
            async with session.begin_nested():
                for pet_id in range(2, 52):
                    await update_pet(session, pet_id, PetUpdate(notes=_NOTES * 3))
        await update_pet(session, 1, PetUpdate(name="After"))

    assert left_in(file) == ["After", *HUNDREDS[1:], "Before"]


async def test_where_sqlite_gives_up_more_than_the_savepoint_nothing_is_saved_in_half(file: Path) -> None:
    async with Database(f"sqlite:///{file}") as db:
        with pytest.raises(DatabaseError, match="an earlier error ended this transaction"):
            async with db.transaction() as session:
                await create_pet(session, PetCreate(name="Before"))
                await allow_pages(session, 5)
                with pytest.raises(StorageError, match="full"):
                    async with session.begin_nested():
                        for _ in range(50):
                            await create_pet(session, PetCreate(name="Lost", notes=_NOTES))
                await update_pet(session, 1, PetUpdate(name="After"))

    assert left_in(file) == HUNDREDS


def run_as(program: str, *arguments: str) -> str:
    """Run a program in a process of its own; return what it prints."""
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    # Nobody may not write what coverage would measure.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


_UNTIL_IT_FAILS = """
import asyncio, resource, sys
from sqlmodel_alembic_async import Database, PetCreate, StorageError, count_pets, create_pet
async def main():
    async with Database(f"sqlite:///{sys.argv[1]}") as db:
        await one(db, "first")
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        try:
            for number in range(200):
                await one(db, f"new {number}")
                print(f"new {number}")
        except StorageError as error:
            print(error)
        async with db.reading() as session:
            await count_pets(session)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await one(db, "last")
async def one(db, name):
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name=name, notes="n" * 1500))
asyncio.run(main())
"""


async def test_a_storage_that_refuses_to_grow_loses_nothing_that_is_in(file: Path) -> None:
    *acknowledged, said = run_as(_UNTIL_IT_FAILS, str(file)).splitlines()

    assert "storage" in said
    assert acknowledged
    assert left_in(file) == [*HUNDREDS, "first", *acknowledged, "last"]


# Read-only, or out of reach.


@pytest.mark.parametrize("options", [{"mode": "ro"}, {"immutable": "1"}, {"mode": "ro", "immutable": "1"}], ids=str)
async def test_a_file_opened_read_only_is_read_and_never_written(file: Path, options: dict[str, str]) -> None:
    before = file.read_bytes()

    async with Database(url_of(file, **options)) as db:
        async with db.reading() as session:
            assert len([pet async for pet in stream_pets(session)]) == 300
        assert await migrations.current(database=db) == migrations.head()
        for unit in (in_transaction, in_run_transaction, in_session):
            with pytest.raises(StorageError, match="read-only"):
                await unit(db)
        async with db.reading() as session:
            assert await count_pets(session) == 300

    assert file.read_bytes() == before


async def test_a_file_without_wal_opened_read_only_is_read_too(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)

    async with Database(url_of(file, mode="ro")) as db:
        async with db.reading() as session:
            assert await count_pets(session) == 300
        with pytest.raises(StorageError, match="read-only"):
            await in_transaction(db)


_AS_NOBODY = """
import asyncio, os, sys
from sqlmodel_alembic_async import *
async def main():
    async with Database(f"sqlite:///{sys.argv[1]}") as db:
        for unit in (write, read, create, look):
            try:
                await unit(db)
                print("done")
            except PetManagementError as error:
                print(f"{type(error).__name__}: {error}")
async def write(db):
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
async def read(db):
    async with db.reading() as session:
        await count_pets(session)
async def create(db):
    await db.create_tables()
async def look(db):
    await migrations.current(database=db)
if os.getuid() == 0:
    os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
asyncio.run(main())
"""


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that another user can reach, as pytest's own can not be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def as_nobody(file: Path) -> list[str]:
    return run_as(_AS_NOBODY, str(file), str(_NOBODY)).splitlines()


def owned_by_nobody(path: Path, mode: int) -> None:
    if os.getuid() == 0:
        os.chown(path, _NOBODY, _NOBODY)
    path.chmod(mode)


def test_a_file_that_may_only_be_read_is_read_only(file: Path, shared_folder: Path) -> None:
    mine = Path(shutil.copy(file, shared_folder))
    owned_by_nobody(shared_folder, 0o755)
    owned_by_nobody(mine, 0o444)

    written, read, *_ = as_nobody(mine)

    assert written.startswith("StorageError: ")
    assert "read-only" in written
    assert read == "done"
    assert left_in(mine) == HUNDREDS


def test_a_file_that_may_not_be_read_can_not_be_opened(file: Path, shared_folder: Path) -> None:
    mine = Path(shutil.copy(file, shared_folder))
    mine.chmod(0o000)

    said = as_nobody(mine)

    assert len(said) == 4
    assert all(line.startswith("StorageError: the database cannot be opened") for line in said)


@pytest.mark.parametrize("mode", [0o555, 0o000], ids=oct)
def test_a_folder_that_may_not_be_written_takes_no_new_database(shared_folder: Path, mode: int) -> None:
    folder = shared_folder / "closed"
    folder.mkdir()
    owned_by_nobody(folder, mode)

    said = as_nobody(folder / "new.db")

    assert len(said) == 4
    assert all(line.startswith("StorageError: the database cannot be opened") for line in said)
    assert list(folder.iterdir() if os.getuid() == 0 else []) == []


def test_a_file_in_a_folder_that_may_not_be_written_is_refused_and_stays_what_it_is(
    file: Path, shared_folder: Path
) -> None:
    folder = shared_folder / "closed"
    folder.mkdir()
    mine = Path(shutil.copy(file, folder))
    owned_by_nobody(mine, 0o644)
    owned_by_nobody(folder, 0o555)

    said = as_nobody(mine)

    folder.chmod(0o755)
    assert len(said) == 4
    assert said[0].startswith("StorageError: ")
    assert left_in(mine) == HUNDREDS


@pytest.mark.parametrize("unit", UNITS)
async def test_a_missing_folder_can_not_be_opened(tmp_path: Path, unit: Unit) -> None:
    async with Database(f"sqlite:///{tmp_path}/missing/pets.db") as db:
        for _ in range(2):
            with pytest.raises(StorageError, match="cannot be opened: check that the folder exists"):
                await unit(db)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("unit", UNITS)
async def test_a_folder_is_no_database(tmp_path: Path, unit: Unit) -> None:
    async with Database(f"sqlite:///{tmp_path}") as db:
        with pytest.raises(StorageError, match="cannot be opened"):
            await unit(db)


async def test_a_folder_that_is_made_later_can_be_used_then(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path}/later/pets.db") as db:
        with pytest.raises(StorageError):
            await in_transaction(db)
        (tmp_path / "later").mkdir()
        await db.create_tables()
        await in_transaction(db)

    assert left_in(tmp_path / "later" / "pets.db") == ["Rex"]


# Damaged.

_NO_DATABASES = {
    "text": b"name,species\nRex,dog\n" * 100,
    "zip": b"PK\x03\x04" + bytes(5000),
    "noise": bytes(range(256)) * 64,
    "short": b"x" * 600,
}


@pytest.mark.parametrize("content", _NO_DATABASES)
@pytest.mark.parametrize("unit", UNITS)
async def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path, unit: Unit, content: str) -> None:
    file = tmp_path / "pets.csv"
    file.write_bytes(_NO_DATABASES[content])

    async with Database(f"sqlite:///{file}") as db:
        for _ in range(2):
            with pytest.raises(StorageError, match="not a database"):
                await unit(db)

    assert file.read_bytes() == _NO_DATABASES[content]
    assert os.listdir(tmp_path) == ["pets.csv"]


async def test_an_overwritten_beginning_is_no_database(file: Path) -> None:
    with file.open("r+b") as damaged:
        damaged.write(b"\xff" * 64)

    async with Database(f"sqlite:///{file}") as db:
        for unit in UNITS:
            with pytest.raises(StorageError, match="not a database"):
                await unit(db)


async def use(db: Database) -> tuple[list[str], set[str]]:
    """Do all that the services do; return what was read, and what was said about the storage."""
    read: list[str] = []
    said: set[str] = set()

    async def stream(session: AsyncSession) -> None:
        async for pet in stream_pets(session, order_by="id", archived=None):
            read.append(pet.name)  # noqa: PERF401  # up to the page that can not be read

    works: list[Callable[[AsyncSession], Awaitable[Any]]] = [
        stream,
        lambda session: list_pets(session, name_contains="9", limit=1000),
        lambda session: list_pets(session, order_by="-created_at", limit=1000),
        lambda session: get_pet(session, 150),
        lambda session: create_pet(session, PetCreate(name="New", external_ref="new", notes=_NOTES)),
        lambda session: update_pet(session, 150, PetUpdate(name="Changed")),
        lambda session: transfer_pet(session, 200, None),
        lambda session: delete_pet(session, 299),
    ]
    for work in works:
        try:
            async with db.transaction() as session:
                await work(session)
        except StorageError as error:
            said.add(str(error))
    return read, said


async def test_a_page_that_is_damaged_anywhere_is_told_and_harms_no_other(file: Path, tmp_path: Path) -> None:
    sound = file.read_bytes()
    size = int.from_bytes(sound[16:18], "big")
    pages = range(2, len(sound) // size + 1)
    told = 0

    for page in list(pages)[:: max(1, len(pages) // 30)]:
        copy = tmp_path / f"{page}.db"
        copy.write_bytes(sound[: (page - 1) * size] + b"\xff" * size + sound[page * size :])
        async with Database(f"sqlite:///{copy}", synchronous="NORMAL") as db:
            read, said = await use(db)
        told += len(said)
        assert said <= {"the database is corrupt"}
        assert read == HUNDREDS[: len(read)]

    assert told > 5


async def test_a_file_that_lost_its_end_is_corrupt(file: Path) -> None:
    size = file.stat().st_size
    os.truncate(file, size // 2)

    async with Database(f"sqlite:///{file}") as db:
        with pytest.raises(StorageError, match="corrupt"):
            async with db.reading() as session:
                assert len([pet async for pet in stream_pets(session)]) == 300
        with pytest.raises(StorageError, match="corrupt"):
            await in_transaction(db)


async def test_a_corrupt_file_is_left_as_it_is_by_units_that_fail(file: Path) -> None:
    content = bytearray(file.read_bytes())
    size = int.from_bytes(content[16:18], "big")
    content[2 * size :] = b"\xff" * (len(content) - 2 * size)
    file.write_bytes(content)

    async with Database(f"sqlite:///{file}") as db:
        for unit in (in_transaction, in_run_transaction, in_session, in_reading):
            with pytest.raises(StorageError, match="corrupt"):
                await unit(db)

    assert file.read_bytes() == content


async def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    file = tmp_path / "pets.db"
    file.touch()

    async with Database(f"sqlite:///{file}") as db:
        with pytest.raises(DatabaseError, match="alembic upgrade head"):
            await in_reading(db)
        await migrations.upgrade(database=db)
        await in_transaction(db)

    assert left_in(file) == ["Rex"]


# Other processes.

_WRITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30)
connection.execute("UPDATE pet SET color = 'seen'")
connection.commit()
connection.close()
"""

_WRITE_UNTIL_KILLED = """
import asyncio, os, subprocess, sys
from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet
async def main():
    db = Database(f"sqlite:///{sys.argv[1]}")
    for number in range(6):
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name=f"acknowledged {number}"))
        print(f"acknowledged {number}", flush=True)
        async with db.reading() as session:
            await count_pets(session)
        if number % 2 == 0:
            subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[1]], check=True)
    os._exit(0)  # without a farewell, as when the process is killed
asyncio.run(main())
"""


def test_what_is_acknowledged_survives_other_processes_that_come_and_go(file: Path) -> None:
    acknowledged = run_as(_WRITE_UNTIL_KILLED, str(file), _WRITE).splitlines()

    assert len(acknowledged) == 6
    assert left_in(file) == [*HUNDREDS, *acknowledged]


async def test_a_process_that_comes_and_goes_leaves_the_files_of_a_database_in_use(file: Path) -> None:
    async with Database(f"sqlite:///{file}") as db:
        await in_transaction(db)
        await in_reading(db)
        files = set(os.listdir(file.parent))
        run_as(_WRITE, str(file))

        assert set(os.listdir(file.parent)) == files == {"pets.db", "pets.db-wal", "pets.db-shm"}
        await in_transaction(db)

    assert left_in(file) == [*HUNDREDS, "Rex", "Rex"]


# Servers.


@pytest.mark.parametrize(
    ("engine_name", "options"),
    [
        ("postgresql", {"connect_args": {"server_settings": {"default_transaction_read_only": "on"}}}),
        ("mariadb", {"connect_args": {"init_command": "SET SESSION TRANSACTION READ ONLY"}}),
    ],
    indirect=["engine_name"],
)
async def test_a_server_that_is_read_only_is_read_and_never_written(db: Database, options: dict[str, Any]) -> None:
    await in_transaction(db)

    async with Database(db.url, **options) as read_only:
        await in_reading(read_only)
        for unit in (in_transaction, in_run_transaction, in_session):
            with pytest.raises(StorageError, match="read-only"):
                await unit(read_only)

    async with db.reading() as session:
        assert await count_pets(session) == 1
