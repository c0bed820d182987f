"""An SQLite connection: aiosqlite's, with one call in the connection's thread for each statement.

BEGIN is sent together with the first statement, the first rows return together with the statement's result, and no
caller waits for ROLLBACK. Cancelling a task interrupts its statement, which would otherwise keep its lock.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable
from typing import Any, Self
from weakref import WeakSet

import aiosqlite
from aiosqlite.core import _STOP_RUNNING_SENTINEL

from ..waiting import until_done
from .cursor import FIRST_ROWS, Cursor
from .inherited_files import refuse_inherited, register
from .thread_calls import call_once, with_future

_WAIT_PER_ATTEMPT = 0.1  # Short: SQLite cannot notice a cancellation while it waits for a lock.
_RETRY_INTERVAL = 0.005
_INTERRUPT_INTERVAL = 0.05


def connect(database: str, *, timeout: float = 5.0, **options: Any) -> "Connection":
    """Return a connection, which opens when it is awaited.

    Args:
        database: A path, or a URI with `uri=True`.
        timeout: Seconds that a statement waits for a lock of another connection.
        options: Other arguments of sqlite3.connect().

    Raises:
        RuntimeError: The process was forked while its parent had this file open.

    """
    refuse_inherited(database)
    # The event loop's thread creates cursors, the connection's thread uses them.
    options |= {"timeout": min(timeout, _WAIT_PER_ATTEMPT), "check_same_thread": False, "factory": _DriverConnection}
    connection = Connection(lambda: sqlite3.connect(database, **options), lock_timeout=timeout)
    register(connection, database)
    return connection


class _DriverConnection(sqlite3.Connection):
    def __del__(self) -> None:
        """Close it without the ResourceWarning of Python 3.13: see Connection.__del__."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # It could not be opened.
            self.close()


class Connection(aiosqlite.Connection):
    """aiosqlite's connection; `lock_timeout` is in seconds."""

    def __init__(self, connector: Callable[[], sqlite3.Connection], *, lock_timeout: float) -> None:
        super().__init__(connector, iter_chunk_size=FIRST_ROWS)
        self._thread.daemon = True  # Otherwise, a process that does not dispose its engine never exits.
        self._lock_timeout = lock_timeout
        self._begin: tuple[str, ...] = ()
        self._waiter: asyncio.Future[Any] | None = None
        # All cursors: SQLite keeps the file open until no statement is left, and a traceback may keep a failed one.
        self.cursors: WeakSet[sqlite3.Cursor] = WeakSet()
        # They hold a read lock. Only the connection's thread changes the set.
        self._unread_cursors: set[sqlite3.Cursor] = set()

    def __del__(self) -> None:
        """Close it without aiosqlite's ResourceWarning: a process may exit without disposing its engines."""
        if self._connection is not None:
            self.stop()

    @property
    def has_lost_transaction(self) -> bool:
        """Whether SQLite itself has rolled back the transaction, for example because the disk is full."""
        return not self._begin and not self._conn.in_transaction and self._conn.isolation_level is not None

    def begin(self, *statements: str) -> None:
        """Begin a transaction: execute these statements immediately before the next statement."""
        self._begin = statements

    def cursor(self) -> Cursor:  # type: ignore[override]  # aiosqlite's costs a thread hop
        """Return a new cursor."""
        return Cursor(self)

    async def commit(self) -> None:
        """Commit; a task that is cancelled meanwhile still waits until the COMMIT has ended."""
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
                self.send(self._rollback)  # SQLAlchemy sends no ROLLBACK after a failed COMMIT.

    async def rollback(self) -> None:
        """Start the ROLLBACK and return at once; the next statement is executed after it."""
        if self._begin:
            self._begin = ()
        elif self._conn.in_transaction or self._unread_cursors:
            self.send(self._rollback)

    async def close(self) -> None:
        """Interrupt the running statement, roll back, close the connection, and end its thread."""
        if (closed := self.stop()) is None:
            return
        while not closed.done():
            # An interrupt has no effect on a statement that has not started yet.
            self._interrupt()
            await asyncio.wait([closed], timeout=_INTERRUPT_INTERVAL)

    def close_blocking(self) -> None:
        """Close as close() does, but block the calling thread: a fork cannot wait for an event loop."""
        self.stop()
        self._thread.join(self._lock_timeout)

    def stop(self) -> asyncio.Future[Any] | None:
        """Start to close; return a future that is done when it is closed, None if there is nothing to wait for."""
        if not self._running:
            return None
        self._running = False
        self._interrupt()
        closed = None
        close = self._close
        with contextlib.suppress(RuntimeError):  # The garbage collector may run where no event loop runs.
            closed = asyncio.get_running_loop().create_future()
            close = with_future(closed, self._close)
        self.send(close)
        self.send(lambda: _STOP_RUNNING_SENTINEL)
        return closed

    async def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function in the connection's thread, inside the transaction."""
        begin, self._begin = self._begin, ()
        waiter = self._waiter = self._start(fn, *args, begin=begin, **kwargs)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._interrupt()
            raise
        except sqlite3.Error:
            if not self._conn.in_transaction:
                self._begin = begin  # BEGIN failed: the next statement must not run outside of the transaction.
            raise

    async def _connect(self) -> Self:
        """Open the connection; close it if the task is cancelled meanwhile, which aiosqlite's method does not."""
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        self.send(with_future(waiter, self._open))
        try:
            await waiter
        except BaseException:
            self.stop()
            raise
        return self

    _execute = run  # aiosqlite's own methods call it by this name.

    def send(self, function: Callable[[], Any]) -> None:
        """Let the connection's thread call a function, without waiting for it."""
        self._tx.put_nowait((None, call_once(function)))

    def _start(
        self, function: Callable[..., Any], *args: Any, begin: Iterable[str] = (), **kwargs: Any
    ) -> asyncio.Future[Any]:
        if not self._running or self._connection is None:
            raise ValueError("Connection closed")
        waiter = asyncio.get_running_loop().create_future()

        def work() -> Any:
            for statement in begin:
                self._retry_while_locked(waiter, self._conn.execute, statement)
            return self._retry_while_locked(waiter, function, *args, **kwargs)

        self.send(with_future(waiter, work))
        return waiter

    def _interrupt(self) -> None:
        waiter, connection = self._waiter, self._connection  # The thread may set it to None at any time.
        if waiter is not None and (waiter.cancelled() or not waiter.done()) and connection is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):  # The thread has already closed it.
                connection.interrupt()

    # The methods below run in the connection's thread.

    def _open(self) -> None:
        self._connection = self._connector()

    def fetch(self, cursor: sqlite3.Cursor, size: int | None) -> list[Any]:
        """Return the next `size` rows, or all for None; fewer than `size` rows are the last ones."""
        if not cursor.description:
            return []
        rows = cursor.fetchall() if size is None else cursor.fetchmany(size)
        if len(rows) == size:
            self._unread_cursors.add(cursor)
        else:
            self._unread_cursors.discard(cursor)
        return rows

    def finish(self, cursor: sqlite3.Cursor) -> None:
        """Close a cursor, and drop its unread rows."""
        self._unread_cursors.discard(cursor)
        cursor.close()

    def _retry_while_locked(
        self, waiter: asyncio.Future[Any], function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Repeat a function while another connection holds the lock, until the timeout or a cancellation."""
        deadline = time.monotonic() + self._lock_timeout
        while True:
            changes, started = self._conn.total_changes, time.monotonic()
            try:
                return function(*args, **kwargs)
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                gave_up = waiter.cancelled() or now >= deadline
                # SQLite returns without waiting where waiting could be a deadlock. A connection without a lock is never
                # part of one, for example when several connections switch a new file to WAL mode.
                did_not_wait = now - started < min(_WAIT_PER_ATTEMPT, self._lock_timeout) / 2
                is_deadlock = did_not_wait and (self._conn.in_transaction or self._unread_cursors)
                if gave_up or is_deadlock or not _is_busy(error) or self._conn.total_changes != changes:
                    raise
                if did_not_wait:
                    time.sleep(_RETRY_INTERVAL)

    def _rollback(self) -> None:
        # SQLite's interrupt stays in effect until no statement is active: it would also interrupt the ROLLBACK.
        while self._unread_cursors:
            self._unread_cursors.pop().close()
        try:
            self._conn.rollback()
        except sqlite3.Error:
            self._conn.close()  # The next statement fails with "Cannot operate on a closed database."

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):
                for cursor in list(self.cursors):
                    cursor.close()
                self._rollback()
                self._connection.close()
            self._connection = None


def _is_busy(error: sqlite3.OperationalError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT
