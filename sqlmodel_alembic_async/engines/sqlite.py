"""All that is SQLite's own: transactions, settings of a connection, the file, databases in memory."""

import contextlib
import logging
import os
import secrets
import sqlite3
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from .begin import begin_mode
from .pools import LoopPool

BUSY_TIMEOUT = 10.0  # Seconds that a writer waits for another process's lock.

# WAL: a reader sees a snapshot and blocks nobody. NORMAL: a power failure may lose the last commits, never the file.
_SETTINGS = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA foreign_keys = ON;
    PRAGMA trusted_schema = OFF;
"""


class _FilePool(LoopPool):
    connections_outlive_loops = True  # Each has a thread of its own and belongs to no loop.


def create_engine(url: URL, **options: Any) -> AsyncEngine:
    """Build a ready engine for a file, or for a database in memory that lives until the engine is disposed."""
    in_memory = url.database in (None, "", ":memory:")
    if in_memory:
        # SQLite's own :memory: is one connection, where each task's rollback erases what the others committed.
        url = url.set(database=f"file:/{secrets.token_hex(8)}").update_query_dict({"vfs": "memdb", "uri": "true"})
    if options.get("poolclass") is LoopPool:
        options["poolclass"] = _FilePool
    # The driver's own transactions begin too late and lose updates: no isolation level, our own BEGIN.
    connect_args = {"isolation_level": None, "timeout": BUSY_TIMEOUT} | options.pop("connect_args", {})
    engine = create_async_engine(url, connect_args=connect_args, **options)
    sync_engine = engine.sync_engine
    if in_memory:
        _keep_alive(sync_engine)
    event.listen(sync_engine, "do_connect", _create_private_file)
    event.listen(sync_engine, "connect", _configure)
    event.listen(sync_engine, "begin", _choose_begin)
    # There are no events for the BEGIN and the COMMIT themselves.
    dialect: Any = sync_engine.dialect
    dialect.do_begin = _begin
    dialect.do_commit = _commit
    # The driver's debug log quotes every parameter.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
    return engine


def _keep_alive(engine: Engine) -> None:
    # A database in memory ends with its last connection: this one stays until the engine is disposed.
    keepers: list[sqlite3.Connection] = []

    def keep(dialect: object, record: object, args: list[Any], options: dict[str, Any]) -> None:
        if not keepers:
            keepers.append(sqlite3.connect(args[0], uri=True, check_same_thread=False))

    def let_go(engine: Engine) -> None:
        while keepers:
            keepers.pop().close()

    event.listen(engine, "do_connect", keep)
    event.listen(engine, "engine_disposed", let_go)


def _create_private_file(dialect: object, record: object, args: list[Any], options: dict[str, Any]) -> None:
    # SQLite would make the file, and with it -wal and -shm, readable by everybody.
    path = args[0]
    if not options.get("uri"):
        # What goes wrong here goes wrong again in SQLite, which reports it with a code.
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _configure(connection: Any, record: object) -> None:
    connection.run_async(lambda driver: driver.executescript(_SETTINGS))


def _choose_begin(connection: Connection) -> None:
    connection.info["begin"] = begin_mode(connection)


def _begin(connection: Any) -> None:
    mode = connection.info["begin"]
    cursor = connection.cursor()
    try:
        if (read_only := mode == "READ ONLY") != connection.info.get("read_only", False):
            cursor.execute(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")
            connection.info["read_only"] = read_only
        cursor.execute("BEGIN IMMEDIATE" if mode == "IMMEDIATE" else "BEGIN")
    finally:
        cursor.close()


def _commit(connection: Any) -> None:
    try:
        connection.commit()
    except sqlite3.Error:
        # A COMMIT that finds the file busy leaves the transaction open, and SQLAlchemy takes it for ended.
        connection.rollback()
        raise
