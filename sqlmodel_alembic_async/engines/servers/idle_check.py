"""Detect dead idle connections to a server, in most cases without a round trip."""

import select
import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from ..driver_connections import transport_of

_IDLE_SINCE = "sqlmodel_alembic_async_idle_since"

_PING_AFTER = 30.0  # Firewalls drop idle connections without a message.


def replace_dead_connections(engine: Engine) -> None:
    """Replace a connection that died while it was idle; a recently used connection costs no round trip.

    A server sends data to an idle connection when it closes the connection, and normally at no other time. So a ping is
    needed only if the socket has data to read, or if the connection has been idle for a long time.
    """
    if engine.pool._pre_ping:
        return

    def check(connection: Any, record: ConnectionPoolEntry, proxy: object) -> None:
        silent = _resume_reading(record.driver_connection)
        idle_since = record.info.get(_IDLE_SINCE)
        if idle_since is None or (silent and time.monotonic() - idle_since < _PING_AFTER):
            return
        try:
            alive = engine.dialect.do_ping(connection)
        except (engine.dialect.loaded_dbapi.Error, OSError) as error:
            raise DisconnectionError from error
        if not alive:
            raise DisconnectionError

    def pause_reading(connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()
        # Data that the server sends stays in the socket, where _resume_reading() can detect it.
        if transport := transport_of(record.driver_connection):
            transport.pause_reading()

    def resume_before_close(connection: Any, record: ConnectionPoolEntry) -> None:
        _resume_reading(record.driver_connection)  # To close a connection, the driver reads the server's answer.

    event.listen(engine, "checkout", check)
    event.listen(engine, "checkin", pause_reading)
    event.listen(engine, "close", resume_before_close)


def _resume_reading(connection: Any) -> bool:
    """Resume reading; return True only if the socket certainly has no data to read."""
    transport = transport_of(connection)
    if transport is None or transport.is_closing() or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    silent = not poll.poll(0)
    transport.resume_reading()
    return silent
