"""Terminate a cancelled task's session on the server, which otherwise finishes the statement and keeps its locks."""

import asyncio
import contextlib
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_, greenlet_spawn

from ..waiting import until_done

# Seconds. The cancelled task waits for the termination, so it must be short.
_TIMEOUTS = {"asyncmy": {"connect_timeout": 1, "read_timeout": 1}, "asyncpg": {"timeout": 1, "command_timeout": 1}}


def kill_abandoned_statements(engine: Engine) -> None:
    """Terminate the server's session when a connection is invalidated because its task was cancelled."""
    dialect = engine.dialect
    latest_connect: dict[str, Any] = {}

    def store_connect_arguments(dialect: object, record: object, args: list[Any], options: dict[str, Any]) -> None:
        latest_connect.update(args=args, options=options)

    def execute(statement: str) -> None:
        # If the server cannot be reached, there is nothing to terminate.
        with contextlib.suppress(dialect.loaded_dbapi.Error, OSError):
            args, options = latest_connect["args"], latest_connect["options"]
            connection = dialect.connect(*args, **options | _TIMEOUTS[dialect.driver])
            try:
                connection.cursor().execute(statement)
            finally:
                connection.close()

    async def execute_in_own_task(statement: str) -> None:
        # The task must be created here, outside of SQLAlchemy's greenlet: an eager task would start inside of it.
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
        # A second cancellation must not prevent SQLAlchemy from closing the connection. SQLAlchemy re-raises the first.
        with contextlib.suppress(asyncio.CancelledError):
            await_(execute_in_own_task(statement))

    event.listen(engine, "do_connect", store_connect_arguments)
    event.listen(engine, "invalidate", terminate_session)
