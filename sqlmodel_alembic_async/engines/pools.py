"""Connection pools that follow their engine from one event loop to the next, and serve in the order of arrival."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Literal
from weakref import WeakSet

from sqlalchemy.engine import Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_, greenlet_spawn

from .queues import FairQueue

READS_ONLY = "sqlmodel_alembic_async_reads_only"  # In the info of a connection of a reader.


class _Room:
    """Stands for a connection that may be made: what is left where making it failed, and somebody waits."""

    def close(self) -> None:
        """There is nothing to close."""

    invalidate = close


_ROOM: Any = _Room()


class LoopPool(AsyncAdaptedQueuePool):
    """A queue pool for one event loop after the other, as two asyncio.run() in one process need."""

    # A server's connection is bound to its loop. One left by an earlier loop can not even be closed properly:
    # it is dropped, and its socket closes with it.
    connections_outlive_loops = False

    _queue_class: Any = FairQueue
    _end_of_loop: AsyncGenerator[None] | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _pool: Any
    _lent: WeakSet[ConnectionPoolEntry]

    def _do_get(self) -> ConnectionPoolEntry:
        self._follow_loop()
        record = super()._do_get()
        if record is _ROOM:
            try:
                record = self._create_connection()
            except BaseException:
                self._dec_overflow()
                raise
        self._lent.add(record)
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if record in self._lent:
            self._lent.discard(record)
            super()._do_return_conn(record)
        else:
            record.close()  # Lent by an earlier loop: this one's queue has no place for it.

    def _dec_overflow(self) -> Literal[True]:
        return self._pool.hand_over(_ROOM) or super()._dec_overflow()

    def dispose(self) -> None:
        """Close every idle connection that can still be closed."""
        self._follow_loop()
        super().dispose()

    def _follow_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        idle = _drained(self._pool) if self._loop is not None else []
        self._loop = loop
        self._lent = WeakSet()
        self._pool = self._queue_class(self._pool.maxsize, use_lifo=self._pool.use_lifo)
        self._overflow = -self._pool.maxsize
        if self.connections_outlive_loops:
            for record in idle:
                self._overflow += 1
                self._pool.put(record, False)
        else:
            self._end_of_loop = self._close_with_loop(self._pool, self._lent)
            await_(anext(self._end_of_loop))

    async def _close_with_loop(
        self, idle: FairQueue[ConnectionPoolEntry], lent: WeakSet[ConnectionPoolEntry]
    ) -> AsyncGenerator[None]:
        # An event loop that ends closes its asynchronous generators. After it no connection of its can be closed.
        try:
            yield
        finally:
            await greenlet_spawn(_close_all, idle, lent)


def _close_all(idle: FairQueue[ConnectionPoolEntry], lent: WeakSet[ConnectionPoolEntry]) -> None:
    for record in (resting := _drained(idle)):
        record.invalidate()
        idle.put(record)
    for record in lent.difference(resting):
        record.invalidate()


def _drained(queue: FairQueue[ConnectionPoolEntry]) -> list[ConnectionPoolEntry]:
    return [queue.get(False) for _ in range(queue.qsize())]


class LanePool(LoopPool):
    """The pool of plain sessions; beside it one for readers, and one of a single connection that writers queue for."""

    def __init__(self, creator: Any, **options: Any) -> None:
        super().__init__(creator, **options)

        def create_reader(record: ConnectionPoolEntry) -> Any:
            record.info[READS_ONLY] = True
            return self._invoke_creator(record)

        self.reader = self._beside(create_reader, **options)
        self.writer = self._beside(creator, **options | {"pool_size": 1, "max_overflow": 0})

    def _beside(self, creator: Any, **options: Any) -> LoopPool:
        lane = LoopPool(creator, **options)
        lane.connections_outlive_loops = self.connections_outlive_loops
        lane.dispatch = self.dispatch  # What listens to the engine's pool listens to all of them.
        return lane

    def dispose(self) -> None:
        """Close every idle connection of every lane."""
        super().dispose()
        self.reader.dispose()
        self.writer.dispose()


class FilePool(LanePool):
    """The lanes of a SQLite database, whose connections have threads of their own and belong to no event loop."""

    connections_outlive_loops = True


def lane(engine: AsyncEngine, name: str, **options: Any) -> AsyncEngine:
    """Return the engine as it is seen in one of its lanes: "reader" or "writer"; plainly, where its pool has none."""
    if isinstance(engine.pool, LanePool):
        return AsyncEngine(_Lane(engine.sync_engine, name, options))
    return engine.execution_options(**options)


class _Lane(OptionEngine):
    def __init__(self, engine: Engine, name: str, options: dict[str, Any]) -> None:
        super().__init__(engine, options)
        self._name = name

    @property
    def pool(self) -> LoopPool:  # type: ignore[override]  # nobody sets it
        """The lane's own, also after the engine was disposed and got another pool."""
        pool: LoopPool = getattr(self._proxied.pool, self._name)
        return pool
