"""Waiting that a cancellation does not cut short."""

import asyncio
from typing import Any


async def until_done(future: asyncio.Future[Any]) -> None:
    """Wait until a future is done; a cancellation meanwhile is raised then, and not before.

    anyio cancels again at every await, so that shielding a single one of them is not enough.
    """
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
