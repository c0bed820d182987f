"""A server goes on with a statement that nobody waits for any more, and keeps its locks: it is told to end it."""

import asyncio
import contextlib
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_, greenlet_spawn

from ..waiting import until_done

# Seconds: who gave up does not wait much longer.
_TIMEOUTS = {"asyncmy": {"connect_timeout": 1, "read_timeout": 1}, "asyncpg": {"timeout": 1, "command_timeout": 1}}


def kill_abandoned_statements(engine: Engine) -> None:
    """Have the server end a session whose connection is closed because its task was cancelled."""
    dialect = engine.dialect
    latest: dict[str, Any] = {}

    def remember(dialect: object, record: object, args: list[Any], options: dict[str, Any]) -> None:
        latest.update(args=args, options=options)

    def kill(order: str) -> None:
        # A server that can not be reached has no use for the order.
        with contextlib.suppress(dialect.loaded_dbapi.Error, OSError):
            killer = dialect.connect(*latest["args"], **latest["options"] | _TIMEOUTS[dialect.driver])
            try:
                killer.cursor().execute(order)
            finally:
                killer.close()

    async def send(order: str) -> None:
        # Made here, outside of SQLAlchemy's greenlet: an eager task would start in it.
        await until_done(asyncio.create_task(greenlet_spawn(kill, order)))

    def give_order(connection: Any, record: ConnectionPoolEntry, error: BaseException | None) -> None:
        was_cancelled = error is not None and not isinstance(error, Exception)
        if not was_cancelled or not latest or dialect.driver not in _TIMEOUTS:
            return
        driver = connection.driver_connection
        if dialect.driver == "asyncmy":
            order = f"KILL {driver.thread_id()}"
        else:
            order = f"SELECT pg_terminate_backend({driver.get_server_pid()})"
        # A further cancellation must not keep SQLAlchemy from closing the connection; it goes on with the first one.
        with contextlib.suppress(asyncio.CancelledError):
            await_(send(order))

    event.listen(engine, "do_connect", remember)
    event.listen(engine, "invalidate", give_order)
