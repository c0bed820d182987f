"""Connection pools with subpools: one for readers and one for writers."""

from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from .echo import DerivedEngine
from .loop_pool import LoopPool

IS_READER = "sqlmodel_alembic_async_is_reader"  # In Connection.info: the connection belongs to the reader pool.


class ReadWritePool(LoopPool):
    """The pool of plain sessions, with two subpools: `reader`, and `writer`, which has a single connection."""

    def __init__(self, creator: Any, **options: Any) -> None:
        super().__init__(creator, **options)

        def create_reader(record: ConnectionPoolEntry) -> Any:
            record.info[IS_READER] = True
            return self._invoke_creator(record)

        self.reader = self._new_subpool(create_reader, **options)
        self.writer = self._new_subpool(creator, **options | {"pool_size": 1, "max_overflow": 0})

    def _new_subpool(self, creator: Any, **options: Any) -> LoopPool:
        subpool = LoopPool(creator, **options)
        subpool.connections_outlive_loops = self.connections_outlive_loops
        subpool.dispatch = self.dispatch  # Listeners of the engine's pool also receive the subpools' events.
        return subpool

    def dispose(self) -> None:
        """Close all idle connections of the pool and of its subpools."""
        super().dispose()
        self.reader.dispose()
        self.writer.dispose()


class SQLitePool(ReadWritePool):
    """A ReadWritePool for SQLite, where each connection has its own thread and works in any event loop."""

    connections_outlive_loops = True


def use_subpool(engine: AsyncEngine, name: str, **options: Any) -> AsyncEngine:
    """Return an engine that uses a subpool of this engine's pool.

    Args:
        engine: The engine; if its pool has no subpools, the result uses that pool.
        name: "reader" or "writer".
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
