"""Whether an idle connection to a server still lives, told without asking the server."""

import select
import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from ..driver_connections import transport_of

_IDLE_SINCE = "sqlmodel_alembic_async_idle_since"

# Seconds. Who watches connections between here and the server forgets the silent ones after some minutes, unnoticed.
_LONG = 30.0


def replace_dead_connections(engine: Engine) -> None:
    """Replace a connection that died in the pool, at no round trip for one that was used just now.

    A server says something when it ends a connection, and nothing otherwise: only where there is something to read,
    or where nobody has looked for long, a ping is worth its time.
    """
    if engine.pool._pre_ping:
        return  # SQLAlchemy was asked to ping every time.

    def check(connection: Any, record: ConnectionPoolEntry, proxy: object) -> None:
        silent = _wake(record.driver_connection)
        idle_since = record.info.get(_IDLE_SINCE)
        if idle_since is None or (silent and time.monotonic() - idle_since < _LONG):
            return
        try:
            alive = engine.dialect.do_ping(connection)
        except (engine.dialect.loaded_dbapi.Error, OSError) as error:
            raise DisconnectionError from error
        if not alive:
            raise DisconnectionError

    def rest(connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()
        # What the server says from now on stays in the socket, and is seen there.
        if transport := transport_of(record.driver_connection):
            transport.pause_reading()

    def wake(connection: Any, record: ConnectionPoolEntry) -> None:
        _wake(record.driver_connection)  # To close it takes an answer.

    event.listen(engine, "checkout", check)
    event.listen(engine, "checkin", rest)
    event.listen(engine, "close", wake)


def _wake(connection: Any) -> bool:
    """Have a connection read again, and tell whether there is nothing to read."""
    transport = transport_of(connection)
    if transport is None or transport.is_closing() or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    silent = not poll.poll(0)
    transport.resume_reading()
    return silent
