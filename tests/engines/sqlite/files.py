"""Files, and connections to them, that the tests of SQLite's connection and of its cursor share."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from sqlmodel_alembic_async import Database
from sqlmodel_alembic_async.engines.sqlite.connection import Connection, connect

ROWS = 3000
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT {} FROM n"
ALL = NUMBERS.format(ROWS, "i")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file with an empty table, and without WAL: readers are in the way of writers."""
    path = str(tmp_path / "x.db")
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE number (i INTEGER PRIMARY KEY)")
    return path


@pytest.fixture
async def connection(path: str) -> AsyncIterator[Connection]:
    connection = await connect(path)
    yield connection
    await connection.close()


@pytest.fixture
def other(path: str) -> Iterator[sqlite3.Connection]:
    """A connection of another program, which waits for nobody."""
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as raw:
        yield raw


@pytest.fixture
async def file_db(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(f"sqlite:///{tmp_path}/file.db", connect_args={"timeout": 0.05}) as db:
        await db.create_tables()
        yield db


def numbers(path: str) -> list[int]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return [row[0] for row in raw.execute("SELECT i FROM number ORDER BY i")]


class Blocked:
    """A function for the connection's thread, which does not end before it is released."""

    def __init__(self, first: Callable[[], object] = lambda: None) -> None:
        self._first = first
        self.started = threading.Event()
        self.released = threading.Event()

    def __call__(self) -> None:
        self._first()
        self.started.set()
        assert self.released.wait(20)

    async def has_started(self) -> None:
        assert await asyncio.to_thread(self.started.wait, 20)
