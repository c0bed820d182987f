"""Terminate a cancelled task's connection on the server. Otherwise its statement runs on and keeps its locks."""

import asyncio
import contextlib
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_, greenlet_spawn

from ..waiting import until_done

# Short, because the cancelled task waits for the termination.
_TIMEOUTS = {"asyncmy": {"connect_timeout": 1, "read_timeout": 1}, "asyncpg": {"timeout": 1, "command_timeout": 1}}


def kill_abandoned_statements(engine: Engine) -> None:
    """Terminate a connection on the server when it is invalidated because its task was cancelled."""
    dialect = engine.dialect
    latest_connect: dict[str, Any] = {}

    def store_connect_arguments(dialect: object, record: object, args: list[Any], options: dict[str, Any]) -> None:
        latest_connect.update(args=args, options=options)

    def execute(statement: str) -> None:
        with contextlib.suppress(dialect.loaded_dbapi.Error, OSError):
            args, options = latest_connect["args"], latest_connect["options"]
            connection = dialect.connect(*args, **options | _TIMEOUTS[dialect.driver])
            try:
                connection.cursor().execute(statement)
            finally:
                connection.close()

    async def execute_in_own_task(statement: str) -> None:
        # Create the task outside of SQLAlchemy's greenlet: an eager task would start inside the greenlet.
        await until_done(asyncio.create_task(greenlet_spawn(execute, statement)))

    def terminate_session(connection: Any, record: ConnectionPoolEntry, error: BaseException | None) -> None:
        was_cancelled = error is not None and not isinstance(error, Exception)
        if not was_cancelled or not latest_connect or dialect.driver not in _TIMEOUTS:
            return
        driver = connection.driver_connection
        if dialect.driver == "asyncmy":
            statement = f"KILL {driver.thread_id()}"
        else:
            statement = f"SELECT pg_terminate_backend({driver.get_server_pid()})"
        # After a second cancellation, SQLAlchemy must still close the connection; it re-raises the first one.
        with contextlib.suppress(asyncio.CancelledError):
            await_(execute_in_own_task(statement))

    event.listen(engine, "do_connect", store_connect_arguments)
    event.listen(engine, "invalidate", terminate_session)
