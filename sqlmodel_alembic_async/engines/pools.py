"""Connection pools with subpools: one for readers, and on SQLite one for writers."""

from typing import Any, ClassVar, Self, cast

from sqlalchemy.engine import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from .echo import DerivedEngine
from .loop_pool import LoopPool

IS_READER = "sqlmodel_alembic_async_is_reader"


class WriterTimeoutError(PoolTimeoutError):
    """On SQLite, other transactions of this process were still writing when the time was over."""


class ReadWritePool(LoopPool):
    """The pool of plain sessions and transactions, with the subpool `reader`."""

    reader_class = LoopPool
    reader_options: ClassVar[dict[str, int]] = {}

    def __init__(self, creator: Any, **options: Any) -> None:
        super().__init__(creator, **options)

        def create_reader(record: ConnectionPoolEntry) -> Any:
            record.info[IS_READER] = True
            return self._invoke_creator(record)

        self.reader = self.reader_class(create_reader, **options | self.reader_options)
        self._adopt(self.reader)

    def _adopt(self, subpool: LoopPool) -> None:
        subpool.connections_outlive_loops = self.connections_outlive_loops
        subpool.dispatch = self.dispatch  # Listeners of the engine's pool also receive the subpools' events.

    def dispose(self) -> None:
        """Close all idle connections of the pool and of its subpools."""
        super().dispose()
        self.reader.dispose()


class _PatientPool(LoopPool):
    patience = 0.25


class SQLitePool(ReadWritePool):
    """A ReadWritePool for SQLite, where each connection has its own thread and works in any event loop.

    Its subpool `writer` has a single connection. The transactions that write wait for it in a FIFO queue.
    """

    connections_outlive_loops = True

    def __init__(self, creator: Any, **options: Any) -> None:
        super().__init__(creator, **options)
        self.writer = _WriterPool(creator, **options | {"pool_size": 1, "max_overflow": 0})
        self._adopt(self.writer)

    def set_lock_timeout(self, seconds: float) -> None:
        """Set how many seconds a transaction waits for the writer."""
        self.writer._timeout = seconds

    def recreate(self) -> Self:
        """Return a new pool with the same settings."""
        pool = cast(Self, super().recreate())
        pool.set_lock_timeout(self.writer.timeout())
        return pool

    def dispose(self) -> None:
        """Close all idle connections of the pool and of its subpools."""
        super().dispose()
        self.writer.dispose()


class FewReadersPool(SQLitePool):
    """An SQLitePool that has few readers unless these are slow.

    The threads of many connections contend for Python's global lock: with 15 readers a list costs several times the CPU
    time. A task that has waited for a while opens one more connection, so that short statements need not wait for the
    end of the slow ones.
    """

    reader_class = _PatientPool
    reader_options: ClassVar[dict[str, int]] = {"pool_size": 3, "max_overflow": 12}


class _WriterPool(LoopPool):
    def _do_get(self) -> Any:
        try:
            return super()._do_get()
        except PoolTimeoutError:
            raise WriterTimeoutError from None


def use_subpool(engine: AsyncEngine, name: str, **options: Any) -> AsyncEngine:
    """Return an engine that uses a subpool of this engine's pool.

    Args:
        engine: The engine; if its pool has no subpools, the result uses that pool.
        name: "reader", or "writer" on SQLite.
        options: Execution options of the result.

    """
    if isinstance(engine.pool, ReadWritePool):
        return AsyncEngine(_SubpoolEngine(engine.sync_engine, name, options))
    return with_options(engine, **options)


def with_options(engine: AsyncEngine, **options: Any) -> AsyncEngine:
    """Return an engine with these execution options that uses the same pool."""
    return AsyncEngine(DerivedEngine(engine.sync_engine, options))


class _SubpoolEngine(DerivedEngine):
    def __init__(self, engine: Engine, name: str, options: dict[str, Any]) -> None:
        super().__init__(engine, options)
        self._name = name

    @property
    def pool(self) -> LoopPool:  # type: ignore[override]  # read-only here
        """The subpool of the engine's current pool: Engine.dispose() replaces the pool."""
        pool: LoopPool = getattr(self._proxied.pool, self._name)
        return pool
