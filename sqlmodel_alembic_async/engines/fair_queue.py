"""A queue for connections that serves in the order of arrival."""

import asyncio
from collections import deque
from typing import TypeVar

from sqlalchemy.util import await_
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty, Full

Item = TypeVar("Item")


class FairQueue(AsyncAdaptedQueue[Item]):
    """SQLAlchemy's queue, less its impatience: there a newcomer takes what somebody else has waited for."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        super().__init__(maxsize, use_lifo)
        self._items: deque[Item] = deque()
        self._waiting: deque[asyncio.Future[Item]] = deque()

    def empty(self) -> bool:
        """Tell whether there is nothing to get."""
        return not self._items

    def full(self) -> bool:
        """Tell whether nothing more can be put."""
        return 0 < self.maxsize <= len(self._items)

    def qsize(self) -> int:
        """Return the number of items."""
        return len(self._items)

    def hand_over(self, item: Item) -> bool:
        """Give an item to who has waited longest; tell whether anybody waits."""
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(item)
                return True
        return False

    def put_nowait(self, item: Item) -> None:
        """Hand an item over, or keep it; raise Full."""
        if self.hand_over(item):
            return
        if self.full():
            raise Full
        self._items.append(item)

    def take_back(self, item: Item) -> None:
        """Take back an item whose receiver no longer wants it: it is the next to be given, and never too many."""
        if self.hand_over(item):
            return
        if self.use_lifo:
            self._items.append(item)
        else:
            self._items.appendleft(item)

    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        """Put an item; a pool has room for what it lent, and never waits for it."""
        self.put_nowait(item)

    def get_nowait(self) -> Item:
        """Return an item; raise Empty."""
        if not self._items:
            raise Empty
        return self._items.pop() if self.use_lifo else self._items.popleft()

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Return an item, at most `timeout` seconds later; raise Empty."""
        if self._items or not block:
            return self.get_nowait()
        return await_(self._wait(timeout))

    async def _wait(self, seconds: float | None) -> Item:
        waiter: asyncio.Future[Item] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except BaseException as error:
            if not waiter.cancel() and not waiter.cancelled():
                self.take_back(waiter.result())
            if isinstance(error, TimeoutError):
                raise Empty from None
            raise
