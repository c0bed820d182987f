"""Handle many rows in slices, and let other tasks of the event loop run between two slices."""

import asyncio
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, TypeVar

from sqlmodel.ext.asyncio.session import AsyncSession

from .execution import POPULATE_EXISTING, statement

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_SIZE = 1000
SLICE = 200  # Validating or loading so many rows takes a few milliseconds.
_LONGEST_TURN = 0.01  # A few long texts take as long as a slice of short ones.


async def mapped(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return the result of `work` for each item."""
    results = []
    end_of_turn = perf_counter() + _LONGEST_TURN
    for number, item in enumerate(items, 1):
        results.append(work(item))
        if number % SLICE == 0 or perf_counter() > end_of_turn:
            await asyncio.sleep(0)
            end_of_turn = perf_counter() + _LONGEST_TURN
    return results


async def fetch_all(session: AsyncSession, query: Any, values: dict[str, Any] | None = None) -> list[Any]:
    """Return what execution.fetch_all() returns, but load the rows in slices."""
    options = POPULATE_EXISTING if session.sync_session.identity_map else {}

    def execute(sync_session: Any) -> Any:
        # exec() of the asynchronous session would load all rows in one step.
        return sync_session.exec(query, params=values, execution_options=options).yield_per(SLICE)

    async with statement(session):
        result = await session.run_sync(execute)
        found: list[Any] = []
        while part := result.fetchmany(SLICE):
            found += part
            await asyncio.sleep(0)
        return found
