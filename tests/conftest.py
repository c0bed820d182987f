"""Fixtures: every database test runs on SQLite, PostgreSQL and MariaDB, each with a database of its own."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Generator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import AsyncSession, Database, migrations
from sqlmodel_alembic_async.services.csv_files import file_format

from .measuring import measured
from .servers import ENGINES, new_database

collect_ignore = ["engines/dialect_suite"]  # test_dialect.py runs it, in processes of its own


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    # pytest-cov measures the processes of pytest-xdist: they need no measurement of their own.
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with measured(item):
        return (yield)


@pytest.fixture(scope="session", params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def migrated_url(engine_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """One migrated database for each engine and each test process; `db` leaves it empty."""
    with new_database(engine_name, tmp_path_factory.mktemp("database")) as url:
        asyncio.run(_migrate(url))
        yield url


async def _migrate(url: URL) -> None:
    async with Database(url) as db:
        await migrations.upgrade(database=db)


@pytest.fixture
def empty_url(engine_name: str, tmp_path: Path) -> Iterator[URL]:
    """A database of this test's own, without tables."""
    with new_database(engine_name, tmp_path) as url:
        yield url


@pytest.fixture
async def db(migrated_url: URL) -> AsyncIterator[Database]:
    """A migrated database without rows."""
    async with Database(migrated_url) as database:
        yield database
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("DELETE FROM pet")
            await connection.exec_driver_sql(f"DELETE FROM {quoted(database, 'user')}")


@pytest.fixture
async def session(db: Database) -> AsyncIterator[AsyncSession]:
    async with db.session() as session:
        yield session


class Statements:
    """Counts what a database is asked, BEGIN and its like left out."""

    def __init__(self, database: Database) -> None:
        self.texts: list[str] = []
        event.listen(database.engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"):
            self.texts.append(statement)

    def __len__(self) -> int:
        return len(self.texts)

    async def taken_by(self, work: Awaitable[object]) -> int:
        """Return how many statements the work takes."""
        before = len(self)
        await work
        return len(self) - before


@pytest.fixture
def statements(db: Database) -> Statements:
    return Statements(db)


def quoted(database: Database, name: str) -> str:
    return str(database.engine.dialect.identifier_preparer.quote(name))


@pytest.fixture(params=[1000, 1])
def batch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of an import mean the same whether they are in one batch or not."""
    monkeypatch.setattr(file_format, "BATCH_SIZE", request.param)
