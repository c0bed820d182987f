"""Repeats a unit of work whose transaction conflicted with another one."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

from .errors import StaleVersionError, TransactionConflictError

Result = TypeVar("Result")

_FIRST_WAIT = 0.01  # Seconds before the first repetition; doubled for each further one, up to the longest wait.
_LONGEST_WAIT = 1.0
_LONGEST_TURN = 10.0  # Seconds that a unit waits for another one that is repeated.


class Retries:
    """The repetitions in one database."""

    def __init__(self) -> None:
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()

    async def run(self, unit: Callable[[], Awaitable[Result]], attempts: int) -> Result:
        """Return what the unit returns; call it up to `attempts` times, with random, growing waits between them.

        Raises:
            TransactionConflictError: The last attempt conflicted, too.
            StaleVersionError: So did it, or the caller expected another version, which repeating can't change.

        """
        turns = self._turns.setdefault(asyncio.get_running_loop(), _Turns())
        with ExitStack() as repeating:
            attempt = 0
            while True:
                attempt += 1
                try:
                    async with turns.one_at_a_time():
                        return await unit()
                except (TransactionConflictError, StaleVersionError) as error:
                    # A version that the caller expected stays stale; a row that the unit itself read is read anew.
                    hopeless = isinstance(error, StaleVersionError) and error.expected is not None
                    if hopeless or attempt >= attempts:
                        raise
                if attempt == 1:
                    repeating.enter_context(turns.repeating())
                longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt)
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311  # jitter is no secret


class _Turns:
    """While a unit is repeated, all go one at a time: many who want the same row would disturb each other for ever."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._repeated = 0

    @contextmanager
    def repeating(self) -> Iterator[None]:
        self._repeated += 1
        try:
            yield
        finally:
            self._repeated -= 1

    @asynccontextmanager
    async def one_at_a_time(self) -> AsyncIterator[None]:
        if not self._repeated:
            yield
            return
        try:
            async with asyncio.timeout(_LONGEST_TURN):  # wait_for() would lose a cancellation that comes with the turn.
                await self._turn.acquire()
        except TimeoutError:  # Nobody waits for ever: the one who has the turn may be waiting for him.
            yield
            return
        try:
            yield
        finally:
            self._turn.release()
