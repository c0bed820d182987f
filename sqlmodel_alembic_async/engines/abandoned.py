"""A server goes on with a statement that nobody waits for any more, and keeps its locks: it is told to end it."""

import asyncio
import contextlib
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_, greenlet_spawn

# Seconds: who gave up does not wait much longer.
_TIMEOUTS = {"asyncmy": {"connect_timeout": 1, "read_timeout": 1}, "asyncpg": {"timeout": 1, "command_timeout": 1}}


def kill_abandoned_statements(engine: Engine) -> None:
    """Have the server end a session whose connection is closed because its task was cancelled."""
    dialect = engine.dialect
    latest: dict[str, Any] = {}
    orders: set[asyncio.Task[None]] = set()

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

    def give_order(connection: Any, record: ConnectionPoolEntry, error: BaseException | None) -> None:
        was_cancelled = error is not None and not isinstance(error, Exception)
        if not was_cancelled or not latest or dialect.driver not in _TIMEOUTS:
            return
        driver = connection.driver_connection
        if dialect.driver == "asyncmy":
            order = f"KILL {driver.thread_id()}"
        else:
            order = f"SELECT pg_terminate_backend({driver.get_server_pid()})"
        # Some cancel again and again until their task ends: the order goes out all the same.
        task = asyncio.ensure_future(greenlet_spawn(kill, order))
        orders.add(task)
        task.add_done_callback(orders.discard)
        await_(asyncio.shield(task))

    event.listen(engine, "do_connect", remember)
    event.listen(engine, "invalidate", give_order)
