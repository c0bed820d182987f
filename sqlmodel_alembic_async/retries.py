"""Repeat a unit of work after its transaction conflicted with another transaction."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

from .errors import StaleVersionError, TransactionConflictError

Result = TypeVar("Result")

_FIRST_WAIT = 0.02  # The upper bound of the random wait after the first attempt; it doubles with each attempt.
_LONGEST_WAIT = 1.0
_LOCK_TIMEOUT = 10.0


class Retries:
    """The retry policy of one database."""

    def __init__(self) -> None:
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, _RetryLock] = WeakKeyDictionary()

    async def run(self, unit: Callable[[], Awaitable[Result]], attempts: int) -> Result:
        """Call the unit of work until it does not conflict, and return its result.

        Random waits separate the attempts; their upper bound grows from 20 ms to 1 s.

        Args:
            unit: The unit of work, which runs in its own transaction and may be called several times.
            attempts: The highest number of calls, at least 1.

        Raises:
            TransactionConflictError: The last attempt conflicted, too.
            StaleVersionError: The last attempt found a stale row, too; or the caller passed an `expected_version` that
                is stale, which is not repeated.

        """
        lock = self._locks.setdefault(asyncio.get_running_loop(), _RetryLock())
        with ExitStack() as retrying:
            attempt = 0
            while True:
                attempt += 1
                try:
                    async with lock.held():
                        return await unit()
                except (TransactionConflictError, StaleVersionError) as error:
                    # A version that the caller passed stays stale. A row that the unit itself reads is read again.
                    is_permanent = isinstance(error, StaleVersionError) and error.expected is not None
                    if is_permanent or attempt >= attempts:
                        raise
                if attempt == 1:
                    retrying.enter_context(lock.retrying())
                longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (attempt - 1))
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311  # the jitter needs no secure randomness


class _RetryLock:
    """A lock that attempts take while at least one unit of work is being retried.

    Without it, many transactions on the same row could conflict again and again.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._retried_units = 0

    @contextmanager
    def retrying(self) -> Iterator[None]:
        self._retried_units += 1
        try:
            yield
        finally:
            self._retried_units -= 1
            if not self._retried_units:
                self._lock = asyncio.Lock()  # A lock that tasks waited for keeps its event loop alive.

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        if not self._retried_units:
            yield
            return
        lock = self._lock
        try:
            # wait_for() would lose a cancellation that arrives together with the lock.
            async with asyncio.timeout(_LOCK_TIMEOUT):
                await lock.acquire()
        except TimeoutError:  # Proceed without the lock: its holder may be waiting for this unit of work.
            yield
            return
        try:
            yield
        finally:
            lock.release()
