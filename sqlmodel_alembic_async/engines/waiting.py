"""Wait for a future to the end, even if the waiting task is cancelled."""

import asyncio
from typing import Any


async def until_done(future: asyncio.Future[Any]) -> None:
    """Wait until a future is done, even if the task is cancelled; raise the CancelledError only then.

    anyio repeats a cancellation at every await, so asyncio.shield() around a single await is not enough.
    """
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
