"""MariaDB and MySQL go on with a statement that nobody waits for any more, and keep its locks: it is killed."""

import contextlib
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import ConnectionPoolEntry

_TIMEOUTS = {"connect_timeout": 1, "read_timeout": 1}  # Seconds: who gave up does not wait much longer.


def kill_abandoned_statements(engine: Engine) -> None:
    """Have the server end a session whose connection is closed because its task was cancelled."""
    dialect = engine.dialect
    latest: dict[str, Any] = {}

    def remember(dialect: object, record: object, args: list[Any], options: dict[str, Any]) -> None:
        latest.update(args=args, options=options)

    def kill(connection: Any, record: ConnectionPoolEntry, error: BaseException | None) -> None:
        if error is None or isinstance(error, Exception):
            return
        # A server that can not be reached has no use for the order.
        with contextlib.suppress(dialect.loaded_dbapi.Error, OSError):
            killer = dialect.connect(*latest["args"], **latest["options"] | _TIMEOUTS)
            try:
                killer.cursor().execute(f"KILL {connection.driver_connection.thread_id()}")
            finally:
                killer.close()

    event.listen(engine, "do_connect", remember)
    event.listen(engine, "invalidate", kill)
