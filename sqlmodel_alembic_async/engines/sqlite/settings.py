"""Prepare engines of SQLite: connection settings, transactions, the file's permissions, in-memory databases."""

import contextlib
import math
import os
import secrets
import sqlite3
from functools import partial
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

import aiosqlite
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import ConnectionPoolEntry

from ..begin_mode import begin_mode
from ..pools import IS_READER, SQLitePool
from .connection import connect

LOCK_TIMEOUT = 60.0  # Seconds.

Synchronous = Literal["NORMAL", "FULL", "EXTRA"]

_SQLALCHEMY_CREATOR_MODULE = "sqlalchemy.engine.create"  # SQLAlchemy's own creator comes from there.

_SETTINGS = """
    PRAGMA synchronous = {synchronous};
    PRAGMA foreign_keys = ON;
    PRAGMA trusted_schema = OFF;
"""


def shared_memory(url: URL) -> URL:
    """Turn the URL of an in-memory database into that of a new one that all connections of an engine share.

    Any other URL is returned unchanged. A :memory: database belongs to one connection: tasks that share this connection
    would roll back each other's changes.
    """
    if url.database not in (None, "", ":memory:"):
        return url
    return url.set(database=f"file:/{secrets.token_hex(8)}").update_query_dict({"vfs": "memdb", "uri": "true"})


def prepare(engine: Engine, synchronous: Synchronous = "FULL", lock_timeout: float | None = None) -> None:
    """Prepare an engine before it connects: this package's connection class, its settings, and explicit BEGIN.

    Args:
        engine: An engine without a custom creator.
        synchronous: The value of PRAGMA synchronous.
        lock_timeout: Seconds that a writer waits for other transactions: those of this process, if the engine has a
            SQLitePool, and those of other processes. None is LOCK_TIMEOUT, or the pool_timeout of the engine.

    Raises:
        TypeError: The engine has a custom creator, or `lock_timeout` is not a number.
        ValueError: `synchronous` has an unknown value, or `lock_timeout` is negative or not finite.

    """
    if synchronous not in get_args(Synchronous):
        raise ValueError(f"synchronous must be one of {', '.join(get_args(Synchronous))}")
    if engine.pool._creator.__module__ != _SQLALCHEMY_CREATOR_MODULE:
        raise TypeError("a custom creator cannot be prepared: build the engine without creator or async_creator")
    if lock_timeout is not None:
        _set_lock_timeout(engine, lock_timeout)
    settings = _SETTINGS.format(synchronous=synchronous)

    def configure(connection: Any, record: ConnectionPoolEntry) -> None:
        reads_only = f"PRAGMA query_only = {bool(record.info.get(IS_READER))}"
        connection.run_async(lambda driver: _configure(driver, settings + reads_only))

    if engine.url.query.get("vfs") == "memdb":
        _keep_alive(engine)
    event.listen(engine, "do_connect", partial(_use_own_connection_class, lock_timeout))
    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", _store_begin_mode)
    # SQLAlchemy has no event that can replace the BEGIN of the driver connection.
    dialect: Any = engine.dialect
    dialect.do_begin = _begin


def _set_lock_timeout(engine: Engine, seconds: float) -> None:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError("lock_timeout must be a number of seconds")
    if not 0 <= seconds < math.inf:
        raise ValueError("lock_timeout must be 0 or more seconds, and finite")
    if isinstance(engine.pool, SQLitePool):
        engine.pool.set_lock_timeout(seconds)


def _use_own_connection_class(
    lock_timeout: float | None, dialect: object, record: object, args: list[Any], options: dict[str, Any]
) -> None:
    options["async_creator_fn"] = connect
    options.setdefault("timeout", LOCK_TIMEOUT if lock_timeout is None else lock_timeout)
    if (path := _new_file(args[0], options)) is not None:
        # SQLite would create the file, its -wal and its -shm readable by all users. O_EXCL: to close an existing file
        # would release all locks of this process on it. After an error here, SQLite fails too, with an error code.
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))


def _new_file(database: str, options: dict[str, Any]) -> str | None:
    """Return the path of the file that SQLite creates if it does not exist; None if it never creates one."""
    if not options.get("uri") or not database.startswith("file:"):
        return database
    uri = urlsplit(database)
    parameters = dict(parse_qsl(uri.query))
    # https://www.sqlite.org/uri.html: other modes do not create a file, and another VFS may use none.
    return unquote(uri.path) if parameters.get("mode", "rwc") == "rwc" and "vfs" not in parameters else None


async def _configure(driver: aiosqlite.Connection, settings: str) -> None:
    try:
        await driver.executescript("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
            raise  # A read-only file keeps its journal mode.
    await driver.executescript(settings)


def _keep_alive(engine: Engine) -> None:
    """Keep one connection open until the engine is disposed: with the last one, an in-memory database is deleted."""
    keepers: list[sqlite3.Connection] = []

    def open_keeper(dialect: object, record: object, args: list[Any], options: dict[str, Any]) -> None:
        if not keepers:
            keepers.append(sqlite3.connect(args[0], uri=True, check_same_thread=False))

    def close_keeper(engine: Engine) -> None:
        while keepers:
            keepers.pop().close()

    event.listen(engine, "do_connect", open_keeper)
    event.listen(engine, "engine_disposed", close_keeper)


def _store_begin_mode(connection: Connection) -> None:
    connection.info["begin"] = begin_mode(connection)


def _begin(connection: Any) -> None:
    mode = connection.info["begin"]
    # Without a reader pool, readers and writers use the same connections: each transaction sets query_only.
    reads_only = "" if connection.info.get(IS_READER) else f"PRAGMA query_only = {mode == 'READ ONLY'}"
    begin = "BEGIN IMMEDIATE" if mode == "IMMEDIATE" else "BEGIN"
    if mode == "AUTOCOMMIT" or connection.isolation_level is None:
        begin = ""
    # sqlite3 itself sends BEGIN only before the first write, after earlier reads, which can lose updates.
    connection.driver_connection.begin(*filter(None, (reads_only, begin)))
