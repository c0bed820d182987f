"""The connections that one event loop has of a pool."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn
from sqlalchemy.util.queue import Empty, Full

from .fair_queue import FairQueue


class _Room:
    """Stands for a connection that may be made: what is left where making it failed, and a task waits for one."""

    driver_connection = None

    def close(self) -> None:
        """There is nothing to close."""

    invalidate = close


ROOM: Any = _Room()


class Share:
    """The connections of one event loop, idle and lent; `overflow` is how many there are above the pool's size."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None, size: int, use_lifo: bool) -> None:
        self.loop = loop
        self.idle: FairQueue[Any] = FairQueue(size, use_lifo=use_lifo)
        self.lent: WeakSet[ConnectionPoolEntry] = WeakSet()
        self.overflow = -size
        self.is_retired = False  # Its connections serve no longer: the pool is disposed, or the loop closed.
        self.end_of_loop: AsyncGenerator[None] | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def take_idle(self) -> list[Any]:
        """Return all idle connections, which nothing else holds any more."""
        taken = []
        with suppress(Empty):
            while True:
                taken.append(self.idle.get(False))
        return taken

    def give_back(self, record: ConnectionPoolEntry) -> None:
        """Keep a connection that was lent, or close it where it serves no longer, or there are enough."""
        try:
            if self.is_retired:
                raise Full
            self.idle.put(record)
        except Full:
            try:
                record.close()
            finally:
                self.make_room()

    def make_room(self) -> None:
        """Let one more connection be made."""
        if not self.idle.hand_over(ROOM):
            self.overflow -= 1

    def close_idle(self) -> None:
        """Close the idle connections."""
        for record in self.take_idle():
            record.close()
            self.make_room()

    def close_all(self) -> None:
        """Close every connection, also those that are lent, which come back."""
        for record in list(self.lent):
            record.invalidate()
        for record in self.take_idle():
            record.invalidate()
            self.make_room()

    async def close_with_loop(self) -> AsyncGenerator[None]:
        """Close every connection when the event loop ends, which then closes its asynchronous generators.

        Later none of them can be closed any more.
        """
        try:
            yield
        finally:
            self.end_of_loop = None
            await greenlet_spawn(self.close_all)

    def call_in(self, loop: asyncio.AbstractEventLoop, function: Any, *args: Any) -> None:
        """Have the share's event loop, which may run in another thread, call a function that awaits in a greenlet."""

        def start() -> None:
            task = asyncio.ensure_future(greenlet_spawn(function, *args))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        loop.call_soon_threadsafe(start)
