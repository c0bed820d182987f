"""Databases and their transactions."""

import asyncio
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy.engine import URL
from sqlmodel import select

import sqlmodel_alembic_async as package
from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    DatabaseUnavailableError,
    OutcomeUnknownError,
    Pet,
    PetCreate,
    PetUpdate,
    StaleVersionError,
    TransactionConflictError,
    User,
    UserNotFoundError,
    count_pets,
    create_pet,
    databases,
    get_session,
    list_pets,
    update_pet,
)


async def names(db: Database) -> list[str]:
    async with db.reading() as session:
        return [pet.name for pet in (await list_pets(session)).items]


async def test_a_transaction_commits_at_its_end(db: Database) -> None:
    async with db.transaction() as session:
        session.add(Pet(name="Rex"))

    assert await names(db) == ["Rex"]


@pytest.mark.parametrize("error", [KeyError("mine"), OSError("mine"), asyncio.CancelledError()])
async def test_a_transaction_rolls_back_on_any_error_and_passes_it_on(db: Database, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Rex"))
            raise error

    assert caught.value is error
    assert await names(db) == []


async def test_a_transaction_in_a_transaction_of_one_task_is_refused_at_once(db: Database, empty_url: URL) -> None:
    async with Database(empty_url) as other, db.transaction() as session:
        with pytest.raises(RuntimeError, match="pass its session as an argument"):
            async with db.transaction():
                pass
        with pytest.raises(RuntimeError, match="pass its session as an argument"):
            await db.run_transaction(lambda session: create_pet(session, PetCreate(name="Rex")))
        async with other.transaction(), db.reading():
            await create_pet(session, PetCreate(name="Max"))

    async with db.transaction():
        pass
    assert await names(db) == ["Max"]


async def test_transactions_of_many_tasks_all_succeed(db: Database) -> None:
    async def add(number: int) -> None:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name=f"Pet {number:02}"))

    await asyncio.gather(*(add(number) for number in range(40)))

    assert len(await names(db)) == 40


async def test_reading_sees_what_is_committed_and_blocks_no_writer(db: Database) -> None:
    async with db.reading() as reader:
        assert await count_pets(reader) == 0
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Rex"))
            async with db.reading() as other:
                assert await count_pets(other) == 0

    assert await names(db) == ["Rex"]


async def test_work_is_repeated_where_transactions_conflict(db: Database) -> None:
    async with db.transaction() as session:
        pet = await create_pet(session, PetCreate(name="Rex", weight_g=1))

    async def grow(session: AsyncSession) -> int:
        mine = await session.get(Pet, pet.id)
        assert mine is not None
        await asyncio.sleep(0)
        mine.weight_g += 1
        return mine.weight_g

    weights = await asyncio.gather(*(db.run_transaction(grow, attempts=100) for _ in range(20)))

    assert sorted(weights) == list(range(2, 22))


@pytest.mark.parametrize("error", [TransactionConflictError("busy"), StaleVersionError(None)])
async def test_work_gives_up_after_its_attempts(db: Database, error: Exception) -> None:
    sessions = []

    async def fail(session: AsyncSession) -> None:
        sessions.append(session)
        raise error

    with pytest.raises(type(error)):
        await db.run_transaction(fail, attempts=3)

    assert len(set(map(id, sessions))) == 3


@pytest.mark.parametrize(
    "error", [StaleVersionError(1), OutcomeUnknownError("lost"), UserNotFoundError(1), KeyError("x")]
)
async def test_work_that_can_not_succeed_is_not_repeated(db: Database, error: Exception) -> None:
    calls = []

    async def fail(session: AsyncSession) -> None:
        calls.append(session)
        raise error

    with pytest.raises(type(error)):
        await db.run_transaction(fail)

    assert len(calls) == 1


async def test_work_needs_at_least_one_attempt(db: Database) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        await db.run_transaction(lambda session: count_pets(session), attempts=0)


async def test_a_value_that_a_column_type_refuses_is_invalid(db: Database) -> None:
    with pytest.raises(package.InvalidValueError):
        async with db.reading() as session:
            await session.exec(select(Pet).where(Pet.created_at > datetime(2020, 1, 1)))


@pytest.mark.parametrize("engine_name", ["mariadb"], indirect=True)
async def test_a_deadlock_in_a_savepoint_never_commits_half_a_transaction(db: Database) -> None:
    async with db.transaction() as session:
        pets = [(await create_pet(session, PetCreate(name=name))).id for name in "ab"]
    ready = [asyncio.Event(), asyncio.Event()]
    conflicts: list[Exception] = []

    async def unit(mine: int) -> None:
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name=f"before {mine}"))
            await update_pet(session, pets[mine], PetUpdate(color="red"))
            ready[mine].set()
            await ready[1 - mine].wait()
            try:
                async with session.begin_nested():
                    await update_pet(session, pets[1 - mine], PetUpdate(color="red"))
            except package.PetManagementError as error:
                conflicts.append(error)
            await create_pet(session, PetCreate(name=f"later {mine}"))

    outcomes = await asyncio.gather(unit(0), unit(1), return_exceptions=True)

    assert [type(error) for error in conflicts] == [TransactionConflictError]
    [winner] = [index for index, outcome in enumerate(outcomes) if outcome is None]
    assert isinstance(outcomes[1 - winner], package.DatabaseError)
    assert await names(db) == ["a", "b", f"before {winner}", f"later {winner}"]


async def test_a_plain_session_is_committed_by_its_caller(db: Database) -> None:
    async with db.session() as session:
        await create_pet(session, PetCreate(name="Lost"))
    async with db.session() as session:
        await create_pet(session, PetCreate(name="Rex"))
        await session.commit()

    assert await names(db) == ["Rex"]


async def test_a_request_is_one_transaction(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "database", db)

    async for session in get_session():
        session.add(Pet(name="Rex"))
    request = get_session()
    session = await anext(request)
    session.add(Pet(name="Lost"))
    await session.flush()
    with pytest.raises(KeyError):
        await request.athrow(KeyError("view"))

    assert await names(db) == ["Rex"]


async def test_a_request_that_is_abandoned_is_rolled_back(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "database", db)

    request = get_session()
    session = await anext(request)
    await create_pet(session, PetCreate(name="Lost"))
    await request.aclose()

    assert await names(db) == []


async def test_a_missing_table_says_migrate(empty_url: URL) -> None:
    async with Database(empty_url) as db:
        with pytest.raises(package.DatabaseError, match="alembic upgrade head"):
            await names(db)


async def by_the_orm(session: package.AsyncSession) -> None:
    await session.exec(select(Pet))


@pytest.mark.parametrize("url", ["postgresql://nobody:secret@127.0.0.1:1/x", "mysql://nobody:secret@127.0.0.1:1/x"])
async def test_an_unreachable_server_is_unavailable(url: str) -> None:
    async with Database(url) as db:
        with pytest.raises(DatabaseUnavailableError):
            async with db.transaction():
                pass
        with pytest.raises(DatabaseUnavailableError):
            async with db.reading(snapshot=True):
                pass
        for read in (count_pets, list_pets, by_the_orm):
            async with db.reading() as session:
                with pytest.raises(DatabaseUnavailableError):
                    await read(session)  # type: ignore[operator]  # each reads with a session
        with pytest.raises(DatabaseUnavailableError):
            await db.create_tables()
        with pytest.raises(DatabaseUnavailableError):
            await count_pets(db.session())


async def test_an_exhausted_pool_is_unavailable(migrated_url: URL) -> None:
    async def wait_in_vain() -> None:
        async with db.transaction():
            pass

    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.05}
    async with Database(migrated_url, **options) as db, db.transaction() as forgetful:
        await count_pets(forgetful)

        with pytest.raises(
            DatabaseUnavailableError,
            match="still writing" if migrated_url.get_backend_name() == "sqlite" else "pool_size",
        ):
            await asyncio.create_task(wait_in_vain())


async def test_a_constraint_that_fails_outside_a_service_is_translated_at_the_end(db: Database) -> None:
    async with db.transaction() as session:
        session.add(User(name="Ada", email="ada@example.com"))

    with pytest.raises(package.AlreadyExistsError) as caught:
        async with db.transaction() as session:
            session.add(User(name="Eve", email="ada@example.com"))
    assert caught.value.field == "email"
    with pytest.raises(UserNotFoundError):
        async with db.transaction() as session:
            session.add(Pet(name="Rex", owner_id=2_000_000_000))
    with pytest.raises(package.UserHasPetsError):
        async with db.transaction() as session:
            owner = User(name="Bob", pets=[Pet(name="Max")])
            session.add(owner)
            await session.flush()
            await session.delete(owner)


async def test_a_stale_row_is_told_at_the_end_of_its_transaction(db: Database) -> None:
    async with db.transaction() as session:
        pet = await create_pet(session, PetCreate(name="Rex"))
    async with db.transaction() as session:
        await update_pet(session, pet.id, PetUpdate(name="Max"))

    with pytest.raises(StaleVersionError) as caught:
        async with db.transaction() as session:
            pet.name = "Old"
            session.add(pet)

    assert caught.value.expected is None


def test_one_database_serves_one_event_loop_after_the_other(migrated_url: URL) -> None:
    # In a process of its own: the connections of a closed loop end with a ResourceWarning.
    program = f"""
import asyncio
from sqlmodel import SQLModel, select
from sqlmodel_alembic_async import Database, PetCreate, count_pets, create_pet
db = Database({migrated_url.render_as_string(hide_password=False)!r}, pool_size=2, max_overflow=0)
async def many(number):
    async def one():
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Rex"))
        async with db.reading() as session:
            return await count_pets(session)
    await asyncio.gather(*(one() for _ in range(number)))
    async with db.transaction() as session:
        from sqlalchemy import text
        await session.exec(text("DELETE FROM pet"))
async def held():
    global left
    left = db.session()
    await count_pets(left)
async def back():
    await many(6)
    await left.close()
    await many(6)
asyncio.run(many(6)); asyncio.run(many(6))
if db.url.get_backend_name() == "sqlite":  # A server's connection can not leave its loop, not even to be closed.
    asyncio.run(held()); asyncio.run(back())
asyncio.run(db.dispose())
print("ok")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


async def test_a_disposed_database_can_be_used_again(db: Database) -> None:
    await db.dispose()

    assert await names(db) == []
    assert db.engine is db.engine


async def test_disposing_a_database_that_was_never_used_makes_no_engine() -> None:
    async with Database("postgresql+nonsense://x/y") as db:
        pass

    assert "engine" not in vars(db)


def test_a_database_shows_its_url_without_its_password() -> None:
    db = Database("postgres://ada:se%25cret@host:5/name?password=secret2")

    assert repr(db) == "Database('postgresql+asyncpg://ada:***@host:5/name')"


def test_the_default_database_is_the_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert str(Database().url) == "sqlite+aiosqlite:///./data.db"
    monkeypatch.setenv("DATABASE_URL", "")
    assert str(Database().url) == "sqlite+aiosqlite:///./data.db"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/x.db")
    assert str(Database().url) == f"sqlite+aiosqlite:///{tmp_path}/x.db"


def test_an_empty_url_is_not_the_environments() -> None:
    with pytest.raises(ValueError, match="not a database URL"):
        _ = Database("").engine


def test_the_package_imports_whatever_the_environment_says() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sqlmodel_alembic_async as package; print(package.database)"],
        env={"DATABASE_URL": "django://ada:secret@host"},
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (0, "Database('django://ada:***@host')\n")


def test_the_engine_is_the_default_databases() -> None:
    assert package.engine is databases.engine is databases.database.engine
    for module in (package, databases):
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            _ = module.nonsense


async def counted(db: Database) -> int:
    async with db, db.reading() as session:
        return await count_pets(session)
