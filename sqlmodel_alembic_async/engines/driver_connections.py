"""Access to the transport and the socket of asyncpg's and asyncmy's connections, and their immediate termination."""

import asyncio
from typing import Any


def transport_of(connection: Any) -> asyncio.Transport | None:
    """Return the asyncio transport of a driver's connection; None if it has none or its socket is closed."""
    transport: asyncio.Transport | None = getattr(connection, "_transport", None)
    is_open = transport is not None and transport.get_extra_info("socket").fileno() >= 0
    return transport if is_open else None


def socket_fd(connection: Any) -> int | None:
    """Return the socket's file descriptor of a driver's connection; None if it has no socket or it is closed."""
    transport = transport_of(connection)
    return None if transport is None else transport.get_extra_info("socket").fileno()


def terminate(connection: Any) -> None:
    """Close a driver's connection at once, without a message to the server."""
    getattr(connection, "terminate", connection.close)()
