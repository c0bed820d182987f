"""Work that conflicts with other work is done again: whole, as often as it takes, but not without end."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Dialect

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    DatabaseError,
    Pet,
    PetCreate,
    PetUpdate,
    TransactionConflictError,
    UserCreate,
    count_pets,
    create_pet,
    create_pets,
    create_user,
    get_pet,
    get_user,
    list_pets,
    list_users,
    retries,
    transfer_pet,
    update_pet,
)

# How each engine says "try again".
CODES: dict[str, list[str | int]] = {
    "sqlite": ["SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_LOCKED"],
    "postgresql": ["40001", "40P01", "55P03"],
    "mariadb": [1213, 1205, 1020],
}
SERVERS = ["postgresql", "mariadb"]
each_code = pytest.mark.parametrize(
    ("engine_name", "code"), [(name, code) for name in CODES for code in CODES[name]], indirect=["engine_name"]
)


class Conflicts:
    """Lets the database answer the statements of these numbers, counted from 1, or COMMITs, with a code.

    A server says it itself, in answer to another statement; what SQLite says is raised where its driver would.
    """

    def __init__(
        self,
        database: Database,
        code: str | int,
        statements: Collection[int] | None = (),
        commits: Collection[int] | None = (),
    ) -> None:
        self.statements = 0
        self.commits = 0
        self._code = code
        self._bad_statements, self._bad_commits = statements, commits
        engine = database.engine.sync_engine
        self._events = [(engine, "before_cursor_execute", self._execute), (engine, "commit", self._commit)]

    def __enter__(self) -> "Conflicts":
        for listener in self._events:
            event.listen(*listener)
        return self

    def __exit__(self, *error: object) -> None:
        for listener in self._events:
            event.remove(*listener)

    def _execute(self, connection: Connection, *statement: object) -> None:
        self.statements += 1
        if self._bad_statements is None or self.statements in self._bad_statements:
            self._spoil(connection.dialect, "do_execute", "do_executemany", "do_execute_no_params")

    def _commit(self, connection: Connection) -> None:
        self.commits += 1
        if self._bad_commits is None or self.commits in self._bad_commits:
            self._spoil(connection.dialect, "do_commit")

    def _spoil(self, dialect: Dialect, *methods: str) -> None:
        patch = pytest.MonkeyPatch()

        def fail(target: Any, *args: object) -> None:
            patch.undo()  # Nothing else of this dialect ran since the event: it is one task, that did not wait.
            if methods == ("do_commit",):
                try:
                    self._complain(dialect.name, target.cursor())
                finally:
                    target.rollback()  # As every database does that says this about a COMMIT.
            self._complain(dialect.name, target)

        for method in methods:
            patch.setattr(dialect, method, fail)

    def _complain(self, dialect: str, cursor: Any) -> None:
        if dialect == "sqlite":
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorname = self._code
            raise error
        if dialect == "postgresql":
            cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'a conflict' USING ERRCODE = '{self._code}'; END $$")
        if self._code == 1213:
            cursor.execute("ROLLBACK")  # As the server does for the victim of a deadlock.
        cursor.execute(f"SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = {self._code}")


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


class Unit:
    """A unit of many statements, of every kind; it counts its attempts."""

    def __init__(self, ada: int, rex: int) -> None:
        self._ada, self._rex = ada, rex
        self._bob: int | None = None
        self.attempts = 0

    async def __call__(self, session: AsyncSession) -> str:
        self.attempts += 1
        await self.add_bob(session)
        await self.change_rex(session)
        await self.add_many(session)
        await self.give_rex(session)
        assert [pet.name for pet in (await list_pets(session)).items] == ["Max", "Rex", "Tom"]
        await self.edit_ada(session)
        return f"done at attempt {self.attempts}"

    async def add_bob(self, session: AsyncSession) -> None:
        self._bob = (await create_user(session, UserCreate(name="Bob", email="bob@example.com"))).id

    async def change_rex(self, session: AsyncSession) -> None:
        await update_pet(session, self._rex, PetUpdate(weight_g=2000), expected_version=1)

    async def add_many(self, session: AsyncSession) -> None:
        async with session.begin_nested():
            await create_pets(session, [PetCreate(name="Max"), PetCreate(name="Tom", owner_id=self._bob)])

    async def give_rex(self, session: AsyncSession) -> None:
        await transfer_pet(session, self._rex, self._bob)

    async def edit_ada(self, session: AsyncSession) -> None:
        (await get_user(session, self._ada)).city = "Turin"


Contents = list[tuple[object, ...]]
BEFORE: Contents = [("Ada", None, 1), ("Rex", 1000, "Ada", 1)]
AFTER: Contents = [
    ("Ada", "Turin", 2),
    ("Bob", None, 1),
    ("Max", None, None, 1),
    ("Rex", 2000, "Bob", 3),
    ("Tom", None, "Bob", 1),
]


async def contents(db: Database) -> Contents:
    async with db.reading() as session:
        users = (await list_users(session)).items
        names = {user.id: user.name for user in users}
        pets = (await list_pets(session)).items
        return [
            *((user.name, user.city, user.version) for user in users),
            *((pet.name, pet.weight_g, names.get(pet.owner_id), pet.version) for pet in pets),
        ]


@contextlib.asynccontextmanager
async def new_unit(db: Database) -> AsyncIterator[Unit]:
    """Give a unit and the rows it needs, which are gone afterwards."""
    async with db.transaction() as session:
        ada = await create_user(session, UserCreate(name="Ada"))
        rex = await create_pet(session, PetCreate(name="Rex", weight_g=1000, owner_id=ada.id))
    assert ada.id is not None
    assert rex.id is not None
    yield Unit(ada.id, rex.id)
    async with db.transaction() as session:
        connection = await session.connection()
        for table in ("pet", db.engine.dialect.identifier_preparer.quote("user")):
            await connection.exec_driver_sql(f"DELETE FROM {table}")


async def length_of_unit(db: Database) -> int:
    async with new_unit(db) as unit:
        with Conflicts(db, "") as counter:
            await db.run_transaction(unit)
        assert await contents(db) == AFTER
    assert counter.statements >= 9
    return counter.statements


@each_code
async def test_a_conflict_at_any_statement_leaves_no_trace(db: Database, code: str | int, waits: list[float]) -> None:
    for number in range(1, await length_of_unit(db) + 1):
        async with new_unit(db) as unit:
            with Conflicts(db, code, statements=[number, 2 * number]):
                result = await db.run_transaction(unit)

            assert result == "done at attempt 3"
            assert await contents(db) == AFTER
            assert len(waits) == 2 * number


@each_code
async def test_a_conflict_that_only_the_commit_tells_leaves_no_trace(
    db: Database, code: str | int, waits: list[float]
) -> None:
    async with new_unit(db) as unit:
        with Conflicts(db, code, commits=[1, 2]):
            result = await db.run_transaction(unit)

        assert result == "done at attempt 3"
        assert await contents(db) == AFTER
        assert len(waits) == 2


@each_code
@pytest.mark.parametrize("at_commit", [True, False])
async def test_rows_made_and_held_outside_of_a_unit_that_is_repeated_are_in(
    db: Database, code: str | int, waits: list[float], at_commit: bool
) -> None:
    async with new_unit(db):
        async with db.reading() as session:
            rex = (await list_pets(session)).items[0]
        new = Pet(name="New")

        async def work(session: AsyncSession) -> None:
            session.add_all((rex, new))
            rex.color = "red"
            await session.flush()
            await update_pet(session, rex.id, PetUpdate(species="dog"))

        with Conflicts(db, code, statements=() if at_commit else [3], commits=[1] if at_commit else ()):
            await db.run_transaction(work)

        assert len(waits) == 1
        async with db.reading() as session:
            pets = (await list_pets(session)).items
        assert [(pet.name, pet.color, pet.species) for pet in pets] == [("New", None, None), ("Rex", "red", "dog")]


@each_code
@pytest.mark.parametrize("attempts", [1, 3, None])
async def test_conflicts_without_end_end_with_the_attempts(
    db: Database, code: str | int, waits: list[float], attempts: int | None
) -> None:
    async with new_unit(db) as unit:
        with Conflicts(db, code, statements=None), pytest.raises(TransactionConflictError):
            await (db.run_transaction(unit) if attempts is None else db.run_transaction(unit, attempts=attempts))

        assert unit.attempts == (attempts or 10)
        assert len(waits) == unit.attempts - 1
        assert await contents(db) == BEFORE


@each_code
async def test_commits_that_conflict_without_end_end_with_the_attempts(
    db: Database, code: str | int, waits: list[float]
) -> None:
    async with new_unit(db) as unit:
        with Conflicts(db, code, commits=None), pytest.raises(TransactionConflictError):
            await db.run_transaction(unit, attempts=3)

        assert unit.attempts == 3
        assert await contents(db) == BEFORE


@each_code
async def test_a_transaction_alone_is_not_repeated(db: Database, code: str | int) -> None:
    async with new_unit(db) as unit:
        with Conflicts(db, code, statements=[3]), pytest.raises(TransactionConflictError):
            async with db.transaction() as session:
                await unit(session)

        assert unit.attempts == 1
        assert await contents(db) == BEFORE


@pytest.mark.parametrize(("engine_name", "code"), [(name, CODES[name][0]) for name in CODES], indirect=["engine_name"])
async def test_work_that_hides_a_conflict_is_in_wholly_or_not_at_all(
    db: Database, code: str | int, waits: list[float]
) -> None:
    for number in range(1, await length_of_unit(db) + 1):
        async with new_unit(db) as unit:

            async def careless(session: AsyncSession, unit: Unit = unit) -> None:
                for step in (unit.add_bob, unit.change_rex, unit.give_rex, unit.edit_ada):
                    with contextlib.suppress(TransactionConflictError):
                        await step(session)

            expected = [row for row in AFTER if row[0] not in ("Max", "Tom")]
            with Conflicts(db, code, statements=[number]):
                try:
                    await db.run_transaction(careless)
                except DatabaseError:
                    expected = BEFORE

            assert await contents(db) == expected


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_the_waits_are_capped_grow_and_never_keep_step(db: Database, waits: list[float]) -> None:
    calls = 0

    async def fail(session: AsyncSession) -> None:
        nonlocal calls
        calls += 1
        raise TransactionConflictError("busy")

    for _ in range(2):
        with pytest.raises(TransactionConflictError):
            await db.run_transaction(fail, attempts=101)

    first, second = waits[:100], waits[100:]
    assert (calls, len(first), len(second)) == (202, 100, 100)
    assert all(0 < wait <= 1 for wait in waits)
    assert max(first[0], second[0]) <= 0.1
    assert max(first) > 0.1
    assert len(set(waits)) == 200


# Conflicts that are real.


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
async def test_a_lock_of_another_process_that_is_held_too_long_is_tried_again(db: Database, waits: list[float]) -> None:
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


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_a_turn_that_is_not_given_in_time_is_not_waited_for(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_LOCK_TIMEOUT", 0.01)
    attempts = 0

    async def unit(session: AsyncSession) -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise TransactionConflictError("busy")
        # Repeated, this one has the turn; it waits for another one, which would have to wait for its turn.
        return await asyncio.create_task(db.run_transaction(count_pets))

    async with asyncio.timeout(5):
        assert await db.run_transaction(unit) == 0


@pytest.mark.parametrize("steps", range(5))
async def test_who_is_cancelled_as_its_turn_comes_learns_that(steps: int) -> None:
    lock = retries._RetryLock()
    done = asyncio.Event()

    async def unit() -> None:
        async with lock.held():
            await done.wait()
            await asyncio.sleep(0.01)

    with lock.retrying():
        first, second = (asyncio.create_task(unit()) for _ in range(2))
        await asyncio.sleep(0.01)
        done.set()
        await first
        for _ in range(steps):
            await asyncio.sleep(0)
        second.cancel()

        with pytest.raises(asyncio.CancelledError):
            await second
