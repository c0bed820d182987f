"""Connection pools with lanes: for readers, for writers, and for plain sessions."""

from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from .loop_pool import LoopPool

READS_ONLY = "sqlmodel_alembic_async_reads_only"  # In the info of a connection of a reader.


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
