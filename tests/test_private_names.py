"""Private names of other libraries that the package relies on: each one, and why.

A new version of a library may change them. Then the test of the name fails here, and says what it is needed for.
"""

import ast
import asyncio
import inspect
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import aiosqlite
import pytest
import sqlalchemy as sa
from aiosqlite import core
from alembic.runtime.environment import EnvironmentContext
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.event.attr import _CompoundListener
from sqlalchemy.ext.asyncio import AsyncSessionTransaction, create_async_engine
from sqlalchemy.orm import InstanceState, Session, SessionTransaction, loading
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool, QueuePool
from sqlmodel import SQLModel

import sqlmodel_alembic_async as package
from sqlmodel_alembic_async import Database, PetCreate
from sqlmodel_alembic_async.engines import driver_connections

from .stress.measures import becomes_true

PACKAGE = Path(package.__file__).parent
FILES = [*PACKAGE.rglob("*.py"), PACKAGE.parent / "alembic" / "env.py"]


def source(name: str, *owners: Any) -> Callable[[], bool]:
    return lambda: any(f"self.{name}" in inspect.getsource(owner) for owner in owners)


def has(owner: Any, name: str) -> Callable[[], bool]:
    return lambda: hasattr(owner, name)


# The name, whether it is there, and the reason why it is used.
PRIVATE: dict[str, tuple[Callable[[], bool], str]] = {
    "_new_runid": (has(loading, "_new_runid"), "undo: to know which rows were loaded after a statement"),
    "_connections": (source("_connections", SessionTransaction), "undo: to know a transaction of the application"),
    "_new": (
        source("_new", SessionTransaction),
        "a rollback removes a new row from the session",
    ),
    "_deleted": (source("_deleted", SessionTransaction), "undo: a deleted row is back after close()"),
    "_key_switches": (source("_key_switches", SessionTransaction), "undo: a changed id is the old one after close()"),
    "_parent": (source("_parent", SessionTransaction), "undo: to tell the transaction from its savepoints"),
    "_expunge_states": (has(Session, "_expunge_states"), "undo: rows that were never stored become transient"),
    "_update_impl": (has(Session, "_update_impl"), "undo: a deleted row is back after close()"),
    "_is_clean": (has(Session, "_is_clean"), "undo: most sessions have nothing to restore when they close"),
    "_for_update_arg": (has(sa.Select, "_for_update_arg"), "a read-only session locks no rows"),
    "_expire": (has(InstanceState, "_expire"), "undo: a row that left the session shows nothing that is undone"),
    "_sync_transaction": (has(AsyncSessionTransaction, "_sync_transaction"), "inner savepoints are rolled back first"),
    "_creator": (source("_creator", Pool), "prepare() refuses an engine that makes its connections itself"),
    "_pre_ping": (source("_pre_ping", Pool), "an engine with pool_pre_ping needs no check of idle connections"),
    "_invoke_creator": (source("_invoke_creator", Pool), "the connections of readers are marked before they are made"),
    "_create_connection": (
        has(Pool, "_create_connection"),
        "a failure to connect lets the next task try",
    ),
    "_do_get": (has(QueuePool, "_do_get"), "each event loop has connections of its own"),
    "_max_overflow": (source("_max_overflow", QueuePool), "a task waits before it opens one more reader of SQLite"),
    "_overflow_lock": (
        source("_overflow_lock", QueuePool),
        "a child process must not wait for its parent's lock",
    ),
    "_proxied": (
        lambda: hasattr(sa.create_engine("sqlite://").execution_options(), "_proxied"),
        "the engines of readers and of the writer have pools of their own",
    ),
    "_echo": (source("_echo", Connection), "a change of echo applies to open connections, too"),
    "_should_log_info": (has(Engine, "_should_log_info"), "a change of echo applies to open connections, too"),
    "_exec_once_mutex": (
        lambda: "_exec_once_mutex" in _CompoundListener.__slots__,
        "SQLAlchemy's lock of the first connection serves one event loop only",
    ),
    "_creation_order": (
        lambda: hasattr(sa.UniqueConstraint(), "_creation_order"),
        "every engine names the same one of several unique values that are taken",
    ),
    "_conn": (has(aiosqlite.Connection, "_conn"), "the cursor and the transaction of SQLite's connection"),
    "_connection": (source("_connection", aiosqlite.Connection), "whether SQLite's connection is open"),
    "_connector": (source("_connector", aiosqlite.Connection), "a connection of a cancelled task is closed"),
    "_thread": (source("_thread", aiosqlite.Connection), "a process ends though nobody has disposed the engine"),
    "_tx": (source("_tx", aiosqlite.Connection), "a statement takes one hop to the connection's thread"),
    "_cursor": (source("_cursor", aiosqlite.Cursor), "the first rows come back with the statement"),
    "_STOP_RUNNING_SENTINEL": (has(core, "_STOP_RUNNING_SENTINEL"), "to end the connection's thread"),
    "_at_fork_reinit": (
        has(threading.Lock(), "_at_fork_reinit"),
        "a child process must not wait for its parent's lock",
    ),
    "_install_proxy": (
        lambda: '["_proxy"] = self' in inspect.getsource(EnvironmentContext._install_proxy),
        "the env.py of an application can await a command of this package",
    ),
    "__pydantic_validator__": (
        has(PetCreate, "__pydantic_validator__"),
        "SQLModel's own way to validate takes three times as long",
    ),
    "__pydantic_on_complete__": (has(SQLModel, "__pydantic_on_complete__"), "help() shows plain types"),
}


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_name_is_there(name: str) -> None:
    is_there, reason = PRIVATE[name]

    assert is_there(), f"{name} is gone. It was used because: {reason}"


def test_no_other_private_name_is_used() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FILES]
    own = {name for tree in trees for name in defined(tree)}
    used = {name for tree in trees for name in private_names(tree)}

    assert "_do_get" in own
    assert used - own - PRIVATE.keys() == set()
    assert PRIVATE.keys() - used == set()


def defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


def private_names(tree: ast.AST) -> Iterator[str]:
    """Yield what is imported or taken from an object and begins with an underscore; of dunders, those of pydantic."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
        yield from (name for name in names if name.startswith("__pydantic") or re.fullmatch("_[A-Za-z].*", name))


async def test_sqlalchemys_pools_have_the_counts_and_queues_that_loops_rely_on(db: Database) -> None:
    assert hasattr(AsyncAdaptedQueuePool, "_queue_class")
    assert "self._queue_class(" in inspect.getsource(QueuePool.__init__)
    assert list(inspect.signature(QueuePool._do_get).parameters) == ["self"]
    assert len(inspect.signature(QueuePool._do_return_conn).parameters) == 2
    assert isinstance(inspect.getattr_static(OptionEngine, "pool"), property)

    engine = create_async_engine(db.url, poolclass=AsyncAdaptedQueuePool, pool_size=3)
    pool: Any = engine.pool
    assert (pool._overflow, pool._pool.maxsize, pool._pool.use_lifo) == (-3, 3, False)
    async with engine.connect() as connection:
        assert (pool._overflow, pool._pool.qsize()) == (-2, 0)
        raw: Any = await connection.get_raw_connection()
        assert raw._connection_record.record_info is not None
    assert (pool._overflow, pool._pool.qsize()) == (-2, 1)
    optioned: Any = engine.sync_engine.execution_options(isolation_level="AUTOCOMMIT")
    assert optioned._proxied is engine.sync_engine
    await engine.dispose()


async def test_aiosqlite_calls_what_is_put_into_its_queue(tmp_path: Path) -> None:
    async with aiosqlite.connect(tmp_path / "x.db") as stock:
        told: list[str] = []
        stock._tx.put_nowait((None, lambda: told.append("no answer")))
        answer = asyncio.get_running_loop().create_future()
        stock._tx.put_nowait((answer, lambda: "an answer"))
        answered = await answer

        assert (told, answered) == (["no answer"], "an answer")
        assert isinstance(stock._tx, SimpleQueue)
        assert isinstance(stock._thread, threading.Thread)
        assert stock._running is True
        assert isinstance(stock._connection, sqlite3.Connection)
        assert stock._conn is stock._connection
        cursor = await stock.cursor()
        assert isinstance(cursor._cursor, sqlite3.Cursor)
        assert cursor._conn is stock

        stock._tx.put_nowait((None, stock._connection.close))
        stock._tx.put_nowait((None, lambda: core._STOP_RUNNING_SENTINEL))
        assert await becomes_true(lambda: not stock._thread.is_alive())
        stock._connection = None
    for method in ("execute", "executemany", "executescript", "create_function", "commit"):
        assert "self._execute(" in inspect.getsource(getattr(aiosqlite.Connection, method)), method


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_the_drivers_read_from_a_transport_that_can_be_paused(db: Database) -> None:
    async with db.engine.connect() as connection:
        transport = driver_connections.transport_of((await connection.get_raw_connection()).driver_connection)

        assert transport is not None
        assert transport.get_extra_info("socket").fileno() > 0
        assert transport.is_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        transport.resume_reading()
