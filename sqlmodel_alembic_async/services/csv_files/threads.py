"""Work on a thread of its own: asyncio's few threads may all be busy, and a process waits for them before it ends."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

Result = TypeVar("Result")


def started(work: Callable[[], Result]) -> asyncio.Future[Result]:
    """Start the work, and return the future of its result; cancelling the future does not end the work."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def run() -> None:
        try:
            answer = partial(future.set_result, work())
        except BaseException as error:
            answer = partial(future.set_exception, error)
        with suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(_unless_done, future, answer)

    threading.Thread(target=run, name="sqlmodel_alembic_async", daemon=True).start()
    return future


def _unless_done(future: asyncio.Future[Result], answer: Callable[[], None]) -> None:
    if not future.done():
        answer()
