"""Work that conflicts with other work is done again: whole, as often as it takes, but not without end."""

import asyncio
import contextlib
import gc
import sqlite3
import weakref
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect

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


def test_a_database_does_not_keep_an_event_loop_in_which_units_waited_for_each_other() -> None:
    policy = retries.Retries()
    attempts = 0

    async def unit() -> None:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(0.01)
        if attempts < 6:
            raise TransactionConflictError("busy")

    async def units() -> "weakref.ref[asyncio.AbstractEventLoop]":
        await asyncio.gather(*(policy.run(unit, 10) for _ in range(4)))
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(units())
    gc.collect()

    assert loop() is None


async def test_while_a_unit_is_repeated_other_attempts_wait_for_their_turn() -> None:
    policy = retries.Retries()
    began, goes_on = asyncio.Event(), asyncio.Event()
    attempts = 0

    async def conflict_once() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise TransactionConflictError
        began.set()
        await goes_on.wait()

    first = asyncio.create_task(policy.run(conflict_once, attempts=2))
    await began.wait()
    second = asyncio.create_task(policy.run(lambda: asyncio.sleep(0), attempts=1))
    await asyncio.wait([second], timeout=0.05)
    assert not second.done()
    goes_on.set()
    await asyncio.gather(first, second)

    assert attempts == 2
