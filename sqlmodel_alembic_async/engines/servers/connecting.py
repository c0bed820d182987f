"""Close a server connection whose task is cancelled while the connection is being opened."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Dialect, Engine

from ..driver_connections import terminate

DRIVERS = ("asyncpg", "asyncmy")

_opening: set[asyncio.Task[Any]] = set()


def close_abandoned_connections(engine: Engine) -> None:
    """Open each connection in a separate task; if the requesting task is cancelled, finish opening and then close it.

    A driver that is cancelled while it connects leaves a half-open connection or an exception that is never retrieved.
    """
    event.listen(engine, "do_connect", _connect_in_own_task)


def _connect_in_own_task(dialect: Dialect, record: object, args: list[Any], options: dict[str, Any]) -> None:
    connect = options.get("async_creator_fn") or getattr(dialect.loaded_dbapi, dialect.driver).connect
    options["async_creator_fn"] = partial(_connect, connect)


async def _connect(connect: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
    async def open_connection() -> Any:
        with suppress(UnicodeEncodeError):  # This error contains the password.
            return await connect(*args, **options)
        raise ValueError(
            "the password of the database URL has a character that the driver cannot send: use ASCII characters only"
        )

    task = asyncio.create_task(open_connection())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        _opening.add(task)
        task.add_done_callback(_close)
        raise


def _close(task: asyncio.Task[Any]) -> None:
    _opening.discard(task)
    if not task.cancelled() and task.exception() is None:
        terminate(task.result())
