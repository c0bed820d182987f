"""A connection pool with separate connections for each event loop and for each forked process."""

import asyncio
import logging
import os
import threading
import time
from typing import Any, Literal

from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import await_
from sqlalchemy.util.concurrency import in_greenlet
from sqlalchemy.util.queue import Empty

from . import forks
from .driver_connections import socket_fd, terminate
from .loop_share import FREE_SLOT, Share

_SHARE = "sqlmodel_alembic_async_share"

_LOCK_POLL_INTERVAL = 0.005
_LOCK_TIMEOUT = 30.0


class LoopPool(AsyncAdaptedQueuePool):
    """A queue pool for several event loops, which may run one after the other or at once in several threads.

    A server's connection works only in the event loop that opened it. So each event loop has its own share of the
    pool; `pool_size` and `max_overflow` apply to each share.

    Attributes:
        connections_outlive_loops: When an event loop ends, its idle connections move to another loop's share instead of
            being closed.
        patience: Seconds that a task waits before it opens a connection beyond `pool_size`, which is closed after its
            use: opening one costs as much as many short statements.

    """

    connections_outlive_loops = False
    patience = 0.05

    _shares: dict[asyncio.AbstractEventLoop | None, Share]
    _is_disposed = False

    def __init__(self, creator: Any, **options: Any) -> None:
        super().__init__(creator, **options)
        logger: Any = self.logger  # With echo_pool=True, SQLAlchemy wraps the logger in an InstanceLogger.
        getattr(logger, "logger", logger).addFilter(_is_no_cancellation)
        self._replace_first_connection_lock()
        forks.pools.add(self)

    def _replace_first_connection_lock(self) -> None:
        connect: Any = self.dispatch.connect
        connect.for_modify(self.dispatch)._exec_once_mutex = _FirstConnectionLock()

    # QueuePool uses these two names; here, they lead to the share of the running loop.

    @property
    def _pool(self) -> Any:
        return self._share().idle

    @_pool.setter
    def _pool(self, queue: Any) -> None:
        self._shares = {None: Share(None, queue.maxsize, queue.use_lifo)}

    @property
    def _overflow(self) -> int:
        return self._share().overflow

    @_overflow.setter
    def _overflow(self, overflow: int) -> None:
        self._share().overflow = overflow

    def _do_get(self) -> Any:
        if not in_greenlet():
            raise MissingGreenlet(
                "a row or a relationship is not loaded, and cannot be loaded without await: use `await"
                " session.refresh(row)` or `await session.refresh(row, [name])`"
            )
        share = self._share()
        if share.loop_end_hook is None and not self.connections_outlive_loops:
            share.loop_end_hook = share.close_when_loop_ends()
            await_(anext(share.loop_end_hook))
        try:
            record: Any = self._get(share)
        except BaseException:
            # A task that was cancelled while it received a connection has put it back; a retired share closes it.
            if share.is_retired and share.loop is not None:
                share.run_in_loop(share.loop, share.close_idle)
            raise
        if record is FREE_SLOT:
            try:
                record = self._create_connection()
            except BaseException:
                share.free_slot()
                raise
        record.record_info[_SHARE] = share
        share.checked_out.add(record)
        return record

    def _get(self, share: Share) -> Any:
        if not 0 <= share.overflow < self._max_overflow:
            return super()._do_get()
        try:
            return share.idle.get_patiently(self.patience, self._timeout, lambda: share.overflow < self._max_overflow)
        except Empty:
            if share.overflow < self._max_overflow:
                return super()._do_get()
            raise PoolTimeoutError("all connections are in use, and none became free in time") from None

    def _do_return_conn(self, record: Any) -> None:
        share: Share = record.record_info[_SHARE]
        share.checked_out.discard(record)
        loop = share.loop
        if loop is None or loop is _running_loop() or loop.is_closed():
            share.check_in(record)
        else:
            share.run_in_loop(loop, share.check_in, record)

    def _dec_overflow(self) -> Literal[True]:
        self._share().free_slot()
        return True

    def dispose(self) -> None:
        """Close all idle connections; each event loop of another thread closes its own."""
        current = self._share()
        self._is_disposed = True
        super().dispose()
        for loop, share in list(self._shares.items()):
            share.is_retired = True
            if share is not current and loop is not None and not loop.is_closed():
                share.run_in_loop(loop, share.close_idle)

    def _share(self) -> Share:
        loop = _running_loop()
        return self._shares.get(loop) or self._add_share(loop)

    def _add_share(self, loop: asyncio.AbstractEventLoop | None) -> Share:
        template = self._shares[None].idle
        share = Share(loop, template.maxsize, template.use_lifo)
        share.is_retired = self._is_disposed
        closed = [loop for loop in list(self._shares) if loop is not None and loop.is_closed()]
        for old in filter(None, [self._shares.pop(loop, None) for loop in closed]):
            old.is_retired = True
            if self.connections_outlive_loops:
                self._move_idle(old, share)
        self._shares[loop] = share
        return share

    def _move_idle(self, old: Share, new: Share) -> None:
        for record in old.take_idle():
            if new.idle.full():
                record.invalidate()
            else:
                new.overflow += 1
                new.idle.put(record)

    def close_idle_before_fork(self) -> None:
        """Close idle SQLite connections: SQLite would wrongly assume that the child process has their file locks."""
        for share in list(self._shares.values()) if self.connections_outlive_loops else ():
            for record in share.take_idle():
                share.overflow -= 1
                if record.driver_connection is not None:
                    record.driver_connection.close_blocking()

    def reset_after_fork(self) -> None:
        """Drop all connections in a child process without sending anything on the parent's sockets."""
        null = os.open(os.devnull, os.O_RDWR)
        for share in self._shares.values():
            for record in [*share.take_idle(), *share.checked_out]:
                forks.inherited.append(record)
                driver = record.driver_connection
                if (socket := socket_fd(driver)) is not None:
                    os.dup2(null, socket)
                    terminate(driver)
        os.close(null)
        self._pool = self._shares[None].idle
        # Another thread of the parent may have held these locks.
        self._replace_first_connection_lock()
        self._overflow_lock = threading.Lock()


class _FirstConnectionLock:
    """The lock that SQLAlchemy holds while it initializes a dialect on the pool's first connection.

    SQLAlchemy's own lock works in one event loop only. This one works across event loops and threads. It raises
    TimeoutError if another event loop keeps it too long, for example because that loop has stopped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while not self._lock.acquire(blocking=False):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    "timed out: another event loop is still opening the first connection of this engine:"
                    " check that it is running and not blocked"
                )
            await_(asyncio.sleep(_LOCK_POLL_INTERVAL))

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Drop SQLAlchemy's error log of a cancelled ROLLBACK: the task is cancelled, and the connection is closed."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
