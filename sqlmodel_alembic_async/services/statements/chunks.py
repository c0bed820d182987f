"""Many rows, a slice of them at a time: between two slices, the event loop does what else it has to do."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sqlmodel.ext.asyncio.session import AsyncSession

from .execution import AS_STORED, statement

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_SIZE = 1000  # Rows that one statement reads or writes.
SLICE = 200  # Rows, whose validation, or whose objects, take a few milliseconds.


async def mapped(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return what the work returns for each item."""
    results = []
    for number, item in enumerate(items, 1):
        results.append(work(item))
        if number % SLICE == 0:
            await asyncio.sleep(0)
    return results


async def fetch_all(session: AsyncSession, query: Any, values: dict[str, Any] | None = None) -> list[Any]:
    """Return what rows.fetch_all() returns."""
    options = AS_STORED if session.sync_session.identity_map else {}

    def execute(sync_session: Any) -> Any:
        # Not by exec() of the asynchronous session, which makes the objects of all rows at once.
        return sync_session.exec(query, params=values, execution_options=options).yield_per(SLICE)

    async with statement(session):
        result = await session.run_sync(execute)
        found: list[Any] = []
        while part := result.fetchmany(SLICE):
            found += part
            await asyncio.sleep(0)
        return found
