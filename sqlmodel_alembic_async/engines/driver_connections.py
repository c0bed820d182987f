"""What the drivers' own connections to servers have in common: a transport, a socket, and a quick end."""

import asyncio
from typing import Any


def transport_of(connection: Any) -> asyncio.Transport | None:
    """Return what a driver reads from; None also where that is closed."""
    transport: asyncio.Transport | None = getattr(connection, "_transport", None)
    is_open = transport is not None and transport.get_extra_info("socket").fileno() >= 0
    return transport if is_open else None


def socket_of(connection: Any) -> int | None:
    """Return the file descriptor of a driver's connection to a server; None where it is closed, or has none."""
    transport = transport_of(connection)
    return None if transport is None else transport.get_extra_info("socket").fileno()


def end(connection: Any) -> None:
    """End a driver's connection at once, without a word to the server."""
    getattr(connection, "terminate", connection.close)()
