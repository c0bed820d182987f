"""A FIFO queue for the tasks that wait for a connection."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.util import await_
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty, Full

Item = TypeVar("Item")


class FairQueue(AsyncAdaptedQueue[Item]):
    """A FIFO queue: a newcomer never overtakes a waiter, as it can in SQLAlchemy's own queue."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        super().__init__(maxsize, use_lifo)
        self._items: deque[Item] = deque()
        self._waiting: deque[asyncio.Future[Item]] = deque()

    def empty(self) -> bool:
        """Return whether the queue holds no item."""
        return not self._items

    def full(self) -> bool:
        """Return whether the queue holds `maxsize` items."""
        return 0 < self.maxsize <= len(self._items)

    def qsize(self) -> int:
        """Return the number of items."""
        return len(self._items)

    def hand_over(self, item: Item) -> bool:
        """Give an item to the task that has waited longest; return False if no task waits."""
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(item)
                return True
        return False

    def put_nowait(self, item: Item) -> None:
        """Give an item to the first waiter, or store it.

        Raises:
            Full: No task waits, and the queue holds `maxsize` items.

        """
        if self.hand_over(item):
            return
        if self.full():
            raise Full
        self._items.append(item)

    def put_back(self, item: Item) -> None:
        """Put back an item whose receiver was cancelled: the next get() returns it, and `maxsize` does not apply."""
        if self.hand_over(item):
            return
        if self.use_lifo:
            self._items.append(item)
        else:
            self._items.appendleft(item)

    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        """Put an item without waiting; raise Full as put_nowait() does.

        Waiting is not needed: the pool closes a connection for which the queue is full.
        """
        self.put_nowait(item)

    def get_nowait(self) -> Item:
        """Return an item; raise Empty if there is none."""
        if not self._items:
            raise Empty
        return self._items.pop() if self.use_lifo else self._items.popleft()

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Return an item; wait at most `timeout` seconds for one, then raise Empty."""
        if self._items or not block:
            return self.get_nowait()
        return await_(self._wait(timeout))

    def get_patiently(self, patience: float, timeout: float | None, may_give_up: Callable[[], bool]) -> Item:
        """Return an item; raise Empty after `patience` seconds if the caller may give up then, else after `timeout`."""
        if self._items:
            return self.get_nowait()
        return await_(self._wait(timeout, patience, may_give_up))

    async def _wait(
        self, seconds: float | None, patience: float | None = None, may_give_up: Callable[[], bool] = bool
    ) -> Item:
        waiter: asyncio.Future[Item] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                if patience is not None:
                    await asyncio.wait([waiter], timeout=patience)
                    if not waiter.done() and may_give_up():
                        raise TimeoutError
                return await waiter
        except BaseException as error:
            if not waiter.cancel() and not waiter.cancelled():
                self.put_back(waiter.result())
            if isinstance(error, TimeoutError):
                raise Empty from None
            raise
