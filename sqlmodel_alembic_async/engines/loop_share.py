"""The share of a connection pool that belongs to one event loop."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn
from sqlalchemy.util.queue import Empty, Full

from .fair_queue import FairQueue


class _FreeSlot:
    """A queue item that permits a waiting task to open a connection itself.

    The first waiter gets it after a connection was closed or could not be opened. If that task is cancelled, the item
    stays in the queue of idle connections. So it has the methods of a connection that are called there.
    """

    driver_connection = None

    def close(self) -> None:
        """Do nothing: there is no connection."""

    invalidate = close


FREE_SLOT: Any = _FreeSlot()


class Share:
    """The idle and checked-out connections of one event loop.

    `overflow` is the number of open connections minus `pool_size`, as in SQLAlchemy's QueuePool. A share is retired
    when the pool is disposed or the loop is closed: returned connections are closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None, size: int, use_lifo: bool) -> None:
        self.loop = loop
        self.idle: FairQueue[Any] = FairQueue(size, use_lifo=use_lifo)
        self.checked_out: WeakSet[ConnectionPoolEntry] = WeakSet()
        self.overflow = -size
        self.is_retired = False
        self.loop_end_hook: AsyncGenerator[None] | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def take_idle(self) -> list[Any]:
        """Remove all idle connections from the share, and return them."""
        taken = []
        with suppress(Empty):
            while True:
                taken.append(self.idle.get(False))
        return taken

    def check_in(self, record: ConnectionPoolEntry) -> None:
        """Keep a returned connection as idle; close it if the share is retired or has enough idle connections."""
        try:
            if self.is_retired:
                raise Full
            self.idle.put(record)
        except Full:
            try:
                record.close()
            finally:
                self.free_slot()

    def free_slot(self) -> None:
        """Permit one more connection: let the first waiter open it, or decrease `overflow` if no task waits."""
        if not self.idle.hand_over(FREE_SLOT):
            self.overflow -= 1

    def close_idle(self) -> None:
        """Close the idle connections."""
        for record in self.take_idle():
            record.close()
            self.free_slot()

    def close_all(self) -> None:
        """Close all connections. The checked-out ones are invalidated now, and still returned later."""
        for record in list(self.checked_out):
            record.invalidate()
        for record in self.take_idle():
            record.invalidate()
            self.free_slot()

    async def close_when_loop_ends(self) -> AsyncGenerator[None]:
        """Close all connections when the event loop ends.

        asyncio.run() closes all asynchronous generators before it closes the loop. After that, no connection of the
        loop can be closed any more.
        """
        try:
            yield
        finally:
            self.loop_end_hook = None
            await greenlet_spawn(self.close_all)

    def run_in_loop(self, loop: asyncio.AbstractEventLoop, function: Any, *args: Any) -> None:
        """Schedule a function in an event loop, which may run in another thread; run it in a greenlet there."""

        def start() -> None:
            task = asyncio.ensure_future(greenlet_spawn(function, *args))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        loop.call_soon_threadsafe(start)
