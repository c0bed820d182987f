"""All that is SQLite's own: transactions, settings of a connection, the file, databases in memory."""

import contextlib
import os
import secrets
import sqlite3
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

import aiosqlite
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import ConnectionPoolEntry

from ..begin_mode import begin_mode
from ..pools import READS_ONLY
from .connection import connect

BUSY_TIMEOUT = 10.0  # Seconds that a writer waits for another process's lock.

# What a power failure may cost. FULL: nothing committed. NORMAL: the last commits. Neither ever costs the file.
Synchronous = Literal["NORMAL", "FULL", "EXTRA"]

_SQLALCHEMYS_CREATOR = "sqlalchemy.engine.create"  # The module of the function that connects by the engine's URL.

_SETTINGS = """
    PRAGMA synchronous = {synchronous};
    PRAGMA foreign_keys = ON;
    PRAGMA trusted_schema = OFF;
"""


def shared_memory(url: URL) -> URL:
    """Return the URL of a new database that all connections of an engine share, where the URL is for one in memory."""
    if url.database not in (None, "", ":memory:"):
        return url
    # SQLite's own :memory: is one connection, where each task's rollback erases what the others committed.
    return url.set(database=f"file:/{secrets.token_hex(8)}").update_query_dict({"vfs": "memdb", "uri": "true"})


def prepare(engine: Engine, synchronous: Synchronous = "FULL") -> None:
    """Give an engine, before it connects, our connection with its settings, and transactions that begin in time."""
    if synchronous not in get_args(Synchronous):
        raise ValueError(f"synchronous must be one of {', '.join(get_args(Synchronous))}")
    if engine.pool._creator.__module__ != _SQLALCHEMYS_CREATOR:
        raise TypeError("prepare() makes the connections itself: build the engine without creator or async_creator")
    settings = _SETTINGS.format(synchronous=synchronous)

    def configure(connection: Any, record: ConnectionPoolEntry) -> None:
        reads_only = f"PRAGMA query_only = {bool(record.info.get(READS_ONLY))}"
        connection.run_async(lambda driver: _configure(driver, settings + reads_only))

    if engine.url.query.get("vfs") == "memdb":
        _keep_alive(engine)
    event.listen(engine, "do_connect", _use_our_connection)
    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", _choose_begin)
    # There is no event for the BEGIN itself.
    dialect: Any = engine.dialect
    dialect.do_begin = _begin


def _use_our_connection(dialect: object, record: object, args: list[Any], options: dict[str, Any]) -> None:
    options["async_creator_fn"] = connect
    options.setdefault("timeout", BUSY_TIMEOUT)
    if (path := _new_file(args[0], options)) is not None:
        # SQLite would make the file, and with it -wal and -shm, readable by everybody. A file that is there must not
        # be opened: to close it again would drop every lock that this process holds on it.
        # What goes wrong here goes wrong again in SQLite, which reports it with a code.
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))


def _new_file(database: str, options: dict[str, Any]) -> str | None:
    """Return the path of the file that SQLite creates unless it exists; None where it creates no file."""
    if not options.get("uri") or not database.startswith("file:"):
        return database
    uri = urlsplit(database)
    parameters = dict(parse_qsl(uri.query))
    # https://www.sqlite.org/uri.html: other modes do not create a file, and another VFS may not have any.
    return unquote(uri.path) if parameters.get("mode", "rwc") == "rwc" and "vfs" not in parameters else None


async def _configure(driver: aiosqlite.Connection, settings: str) -> None:
    try:
        # A reader sees a snapshot and blocks nobody.
        await driver.executescript("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
            raise  # A file that can only be read stays as it is.
    await driver.executescript(settings)


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


def _choose_begin(connection: Connection) -> None:
    connection.info["begin"] = begin_mode(connection)


def _begin(connection: Any) -> None:
    mode = connection.info["begin"]
    # Readers that have no pool of their own make a connection one that only reads, and the next one makes it write.
    reads_only = "" if connection.info.get(READS_ONLY) else f"PRAGMA query_only = {mode == 'READ ONLY'}"
    begin = "BEGIN IMMEDIATE" if mode == "IMMEDIATE" else "BEGIN"
    if mode == "AUTOCOMMIT" or connection.isolation_level is None:
        begin = ""
    # The driver's own transactions begin too late, and lose updates.
    connection.driver_connection.begin(*filter(None, (reads_only, begin)))
