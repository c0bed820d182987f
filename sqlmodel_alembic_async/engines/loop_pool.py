"""A connection pool that gives each event loop connections of its own, and a forked process new ones."""

import asyncio
import logging
import os
import threading
import time
from typing import Any, Literal

from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import await_

from . import forks
from .driver_connections import end, socket_of
from .loop_share import ROOM, Share

_SHARE = "sqlmodel_alembic_async_share"  # In the record_info of a connection.

_TURN = 0.005  # Seconds between two looks whether the first connection is ready.
_LONGEST_TURN = 30.0


class LoopPool(AsyncAdaptedQueuePool):
    """A queue pool for several event loops: one after the other, or at once in several threads.

    A server's connection belongs to the event loop that made it. So every loop has a share of its own, of as many
    connections as `pool_size` and `max_overflow` say.
    """

    # Whether connections go on to serve another loop when theirs is closed; others end with their loop.
    connections_outlive_loops = False

    _shares: dict[asyncio.AbstractEventLoop | None, Share]
    _is_disposed = False

    def __init__(self, creator: Any, **options: Any) -> None:
        super().__init__(creator, **options)
        logger: Any = self.logger  # With echo_pool=True one that wraps the other.
        getattr(logger, "logger", logger).addFilter(_is_worth_logging)
        self._lock_first_connection()
        forks.pools.add(self)

    def _lock_first_connection(self) -> None:
        connect: Any = self.dispatch.connect
        connect.for_modify(self.dispatch)._exec_once_mutex = _FirstConnectionLock()

    # SQLAlchemy's pool has one queue and one count of its connections: here they are those of the running loop.

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
        share = self._share()
        if share.end_of_loop is None and not self.connections_outlive_loops:
            share.end_of_loop = share.close_with_loop()
            await_(anext(share.end_of_loop))
        try:
            record: Any = super()._do_get()
        except BaseException:
            if share.is_retired and share.loop is not None:  # A connection that was to be this one may be idle now.
                share.call_in(share.loop, share.close_idle)
            raise
        if record is ROOM:
            try:
                record = self._create_connection()
            except BaseException:
                share.make_room()
                raise
        record.record_info[_SHARE] = share
        share.lent.add(record)
        return record

    def _do_return_conn(self, record: Any) -> None:
        share: Share = record.record_info[_SHARE]
        share.lent.discard(record)
        loop = share.loop
        if loop is None or loop is _running_loop() or loop.is_closed():
            share.give_back(record)
        else:
            share.call_in(loop, share.give_back, record)

    def _dec_overflow(self) -> Literal[True]:
        self._share().make_room()
        return True

    def dispose(self) -> None:
        """Close every idle connection; those of an event loop that runs in another thread are closed there."""
        mine = self._share()
        self._is_disposed = True
        super().dispose()
        for loop, share in list(self._shares.items()):
            share.is_retired = True
            if share is not mine and loop is not None and not loop.is_closed():
                share.call_in(loop, share.close_idle)

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
                self._hand_down(old, share)
        self._shares[loop] = share
        return share

    def _hand_down(self, old: Share, new: Share) -> None:
        for record in old.take_idle():
            if new.idle.full():
                record.invalidate()
            else:
                new.overflow += 1
                new.idle.put(record)

    # What happens around a fork.

    def close_idle_before_fork(self) -> None:
        """Close idle connections to files: in a forked process SQLite would not notice that their locks are gone."""
        for share in list(self._shares.values()) if self.connections_outlive_loops else ():
            for record in share.take_idle():
                share.overflow -= 1
                if record.driver_connection is not None:
                    record.driver_connection.end()

    def start_anew_after_fork(self) -> None:
        """Forget all connections in a forked process, and let go of the sockets, which are the parent's."""
        null = os.open(os.devnull, os.O_RDWR)
        for share in self._shares.values():
            for record in [*share.take_idle(), *share.lent]:
                forks.inherited.append(record)  # As garbage it would be closed.
                driver = record.driver_connection
                if (socket := socket_of(driver)) is not None:
                    os.dup2(null, socket)
                    end(driver)
        os.close(null)
        self._pool = self._shares[None].idle
        self._lock_first_connection()  # Another thread of the parent may have held it.


class _FirstConnectionLock:
    """Held while SQLAlchemy gets to know the server by the first connection; its own lock serves one event loop.

    TimeoutError is raised where the event loop that holds it does not go on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        deadline = time.monotonic() + _LONGEST_TURN
        while not self._lock.acquire(blocking=False):
            if time.monotonic() > deadline:
                raise TimeoutError("another event loop has begun to connect, and does not go on")
            await_(asyncio.sleep(_TURN))

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _is_worth_logging(record: logging.LogRecord) -> bool:
    # SQLAlchemy logs as an error that a ROLLBACK was cancelled. The task is told, and the connection is closed.
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
