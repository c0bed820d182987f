"""SQLite's connection: aiosqlite's, with one hop to its thread and back for a statement.

BEGIN travels with the first statement, the first rows come back with theirs, and ROLLBACK is sent and not waited for.
Who stops waiting for a statement stops the statement: its lock would outlive the connection.
"""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from typing import Any, Self
from weakref import WeakKeyDictionary

import aiosqlite
from aiosqlite.core import _STOP_RUNNING_SENTINEL

from .. import forks
from ..waiting import until_done
from .cursor import FIRST_ROWS, Cursor

# Seconds that SQLite waits for a lock without noticing that nobody waits for it any more.
_SLICE = 0.1
_LOOK_AGAIN = 0.005  # Seconds between two attempts where SQLite itself does not wait.
_INTERRUPT_AGAIN = 0.05


def connect(database: str, *, timeout: float = 5.0, **options: Any) -> "Connection":
    """Return a connection to be awaited; the arguments are those of sqlite3.connect()."""
    if os.path.realpath(database) in _left_open:
        raise RuntimeError(
            "this process was forked while its parent used this SQLite file, and SQLite's locks do not survive a fork:"
            " fork while no session is open, or start processes with multiprocessing's 'spawn' method"
        )
    # A cursor is made on the event loop's thread, and used on the connection's own.
    options |= {"timeout": min(timeout, _SLICE), "check_same_thread": False}
    connection = Connection(lambda: sqlite3.connect(database, **options), patience=timeout)
    _open[connection] = database
    return connection


class Connection(aiosqlite.Connection):
    """aiosqlite's connection; `patience` is in seconds."""

    def __init__(self, connector: Callable[[], sqlite3.Connection], *, patience: float) -> None:
        super().__init__(connector, iter_chunk_size=FIRST_ROWS)
        self._thread.daemon = True  # The process would wait for it where nobody disposes the engine.
        self._patience = patience
        self._begin: tuple[str, ...] = ()
        self._waiter: asyncio.Future[Any] | None = None
        self._unfinished: set[sqlite3.Cursor] = set()  # They have rows to give, and so a lock; the thread's own.

    def __del__(self) -> None:
        """Close it in silence: a process may end without disposing its engines."""
        if self._connection is not None:
            self.stop()

    @property
    def has_ended(self) -> bool:
        """Whether the transaction is over though nobody ended it, as where the storage is full."""
        return not self._begin and not self._conn.in_transaction and self._conn.isolation_level is not None

    def begin(self, *statements: str) -> None:
        """Begin a transaction with these statements as soon as there is something to do in it."""
        self._begin = statements

    def cursor(self) -> Cursor:  # type: ignore[override]  # aiosqlite's costs a hop
        """Return a cursor."""
        return Cursor(self)

    async def commit(self) -> None:
        """Commit; who is cancelled meanwhile still waits for the end of it."""
        if self._begin:
            self._begin = ()
            return
        committed = self._start(self._conn.commit)
        try:
            await asyncio.shield(committed)
        except asyncio.CancelledError:
            await until_done(committed)
            raise
        finally:
            if committed.exception() is not None:
                self.send(self._rollback)  # SQLAlchemy takes the transaction for ended, whatever comes of the COMMIT.

    async def rollback(self) -> None:
        """Have the transaction rolled back before anything else happens on this connection."""
        if self._begin:
            self._begin = ()
        elif self._conn.in_transaction or self._unfinished:
            self.send(self._rollback)

    async def close(self) -> None:
        """Stop what is still running, roll back, close, and end the thread."""
        if (closed := self.stop()) is None:
            return
        while not closed.done():
            # A statement that was only about to start did not notice the first time.
            self._interrupt()
            await asyncio.wait([closed], timeout=_INTERRUPT_AGAIN)

    def end(self) -> None:
        """Do as close(), where no event loop can wait for it: the calling thread waits."""
        self.stop()
        self._thread.join(self._patience)

    def stop(self) -> asyncio.Future[Any] | None:
        """Do as close(), not waiting for it."""
        if not self._running:
            return None
        self._running = False
        self._interrupt()
        closed = None
        close = self._close
        with contextlib.suppress(RuntimeError):  # Collected as garbage, outside of any event loop.
            closed = asyncio.get_running_loop().create_future()
            close = _answering(closed, self._close)
        self.send(close)
        self.send(lambda: _STOP_RUNNING_SENTINEL)
        return closed

    async def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function on the connection's thread, inside the transaction."""
        begin, self._begin = self._begin, ()
        waiter = self._waiter = self._start(fn, *args, begin=begin, **kwargs)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._interrupt()
            raise
        except sqlite3.Error:
            if not self._conn.in_transaction:
                self._begin = begin  # What follows must not run outside of the transaction.
            raise

    async def _connect(self) -> Self:
        # aiosqlite's own would lose a connection that is opened after its task was cancelled.
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        self.send(_answering(waiter, self._open))
        try:
            await waiter
        except BaseException:
            self.stop()
            raise
        return self

    _execute = run  # By this name aiosqlite's own methods run what they do.

    def send(self, function: Callable[[], Any]) -> None:
        """Have a function called on the connection's thread, and wait for nothing."""
        self._tx.put_nowait((None, _once(function)))

    def _start(
        self, function: Callable[..., Any], *args: Any, begin: Iterable[str] = (), **kwargs: Any
    ) -> asyncio.Future[Any]:
        if not self._running or self._connection is None:
            raise ValueError("Connection closed")
        waiter = asyncio.get_running_loop().create_future()

        def work() -> Any:
            for statement in begin:
                self._patiently(waiter, self._conn.execute, statement)
            return self._patiently(waiter, function, *args, **kwargs)

        self.send(_answering(waiter, work))
        return waiter

    def _interrupt(self) -> None:
        waiter, connection = self._waiter, self._connection  # The thread may be letting go of the connection just now.
        if waiter is not None and (waiter.cancelled() or not waiter.done()) and connection is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):  # The thread has closed it already.
                connection.interrupt()

    # What follows runs on the connection's thread.

    def _open(self) -> None:
        self._connection = self._connector()

    def fetch(self, cursor: sqlite3.Cursor, size: int | None) -> list[Any]:
        """Return the next rows, or all; fewer than `size` are the last ones."""
        if not cursor.description:
            return []
        rows = cursor.fetchall() if size is None else cursor.fetchmany(size)
        if len(rows) == size:
            self._unfinished.add(cursor)
        else:
            self._unfinished.discard(cursor)
        return rows

    def finish(self, cursor: sqlite3.Cursor) -> None:
        """Let go of the rows that nobody wants."""
        self._unfinished.discard(cursor)
        cursor.close()

    def _patiently(self, waiter: asyncio.Future[Any], function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function again while another connection has the lock, and somebody waits for the answer."""
        deadline = time.monotonic() + self._patience
        while True:
            changes, began = self._conn.total_changes, time.monotonic()
            try:
                return function(*args, **kwargs)
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                in_vain = waiter.cancelled() or now >= deadline
                # SQLite does not wait at all where that could be a deadlock. It is none for a connection that has no
                # lock, as where several switch a new file to WAL at once.
                at_once = now - began < min(_SLICE, self._patience) / 2
                is_deadlock = at_once and (self._conn.in_transaction or self._unfinished)
                if in_vain or is_deadlock or not _is_busy(error) or self._conn.total_changes != changes:
                    raise
                if at_once:
                    time.sleep(_LOOK_AGAIN)

    def _rollback(self) -> None:
        # An interruption lasts until no statement is unfinished: it would strike the ROLLBACK, too.
        while self._unfinished:
            self._unfinished.pop().close()
        try:
            self._conn.rollback()
        except sqlite3.Error:
            self._conn.close()  # Who uses it next is told that the connection is closed.

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):  # Closed already.
                self._rollback()
                self._connection.close()
            self._connection = None


def _once(function: Callable[[], Any]) -> Callable[[], Any]:
    """Return the function to be called once: the thread remembers its last call, and must not keep the connection."""
    calls = [function]
    return lambda: calls.pop()()


def _answering(waiter: asyncio.Future[Any], function: Callable[[], Any]) -> Callable[[], None]:
    """Return the function for the thread, which answers on the waiter's event loop unless that is closed by then."""

    def work() -> None:
        if waiter.cancelled():
            return
        answer: tuple[Callable[[Any], None], Any]
        try:
            answer = waiter.set_result, function()
        except BaseException as error:  # whatever it is, the waiter is told
            answer = waiter.set_exception, error
        with contextlib.suppress(RuntimeError):
            waiter.get_loop().call_soon_threadsafe(_settle, waiter, *answer)

    return work


def _settle(waiter: asyncio.Future[Any], settle: Callable[[Any], None], answer: Any) -> None:
    if not waiter.done():
        settle(answer)


# Connections, and their files.
_open: WeakKeyDictionary[Connection, str] = WeakKeyDictionary()
_left_open: set[str] = set()


def _after_fork_in_child() -> None:
    # SQLite believes that this process has the locks of these connections. A further one would not take its own, and
    # other processes would write and delete what it reads. Nor may these be closed.
    left_open = {connection: file for connection, file in _open.items() if connection._connection is not None}
    _left_open.update(map(os.path.realpath, left_open.values()))
    forks.inherited.extend(left_open)


getattr(os, "register_at_fork", dict)(after_in_child=_after_fork_in_child)  # Only Unix has it, as it has fork().


def _is_busy(error: sqlite3.OperationalError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT
