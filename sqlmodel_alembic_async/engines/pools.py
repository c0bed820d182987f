"""A connection pool that follows its engine from one event loop to the next."""

import asyncio
from weakref import WeakSet

from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util.queue import Empty


class LoopPool(AsyncAdaptedQueuePool):
    """A queue pool for one event loop after the other, as two asyncio.run() in one process need."""

    # A server's connection is bound to its loop. One left by an earlier loop can not even be closed properly:
    # it is dropped, and its socket closes with it.
    connections_outlive_loops = False

    _loop: asyncio.AbstractEventLoop | None = None
    _lent: WeakSet[ConnectionPoolEntry]

    def _do_get(self) -> ConnectionPoolEntry:
        self._follow_loop()
        record = super()._do_get()
        self._lent.add(record)
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if record in self._lent:
            self._lent.discard(record)
            super()._do_return_conn(record)
        else:
            record.close()  # Lent by an earlier loop: this one's queue has no place for it.

    def dispose(self) -> None:
        """Close every idle connection that can still be closed."""
        self._follow_loop()
        super().dispose()

    def _follow_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        idle = self._idle_connections() if self._loop is not None else []
        self._loop = loop
        self._lent = WeakSet()
        self._pool = self._queue_class(self._pool.maxsize, use_lifo=self._pool.use_lifo)
        self._overflow = -self._pool.maxsize
        if self.connections_outlive_loops:
            for record in idle:
                self._overflow += 1
                self._pool.put(record, False)

    def _idle_connections(self) -> list[ConnectionPoolEntry]:
        idle = []
        while True:
            try:
                idle.append(self._pool.get(False))
            except Empty:
                return idle
