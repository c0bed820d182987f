"""Whether an idle connection to a server still lives, told without asking the server."""

import asyncio
import select
import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

_IDLE_SINCE = "sqlmodel_alembic_async_idle_since"

# Seconds. Who watches connections between here and the server forgets the silent ones after some minutes, unnoticed.
_LONG = 30.0


def replace_dead_connections(engine: Engine) -> None:
    """Replace a connection that died in the pool, at no round trip for one that was used just now.

    A server says something when it ends a connection, and nothing otherwise: only where there is something to read,
    or where nobody has looked for long, a ping is worth its time.
    """

    def check(connection: Any, record: ConnectionPoolEntry, proxy: object) -> None:
        idle_since = record.info.get(_IDLE_SINCE)
        if idle_since is None or (time.monotonic() - idle_since < _LONG and _is_silent(record.driver_connection)):
            return
        try:
            alive = engine.dialect.do_ping(connection)
        except (engine.dialect.loaded_dbapi.Error, OSError) as error:
            raise DisconnectionError from error
        if not alive:
            raise DisconnectionError

    def note_time(connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()

    event.listen(engine, "checkout", check)
    event.listen(engine, "checkin", note_time)


def _is_silent(connection: Any) -> bool:
    transport: asyncio.Transport | None = getattr(connection, "_transport", None)
    if transport is None or transport.is_closing() or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return not poll.poll(0)
