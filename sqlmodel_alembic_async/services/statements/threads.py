"""Run a function on a thread of its own.

asyncio's default threads are not used: all of them may be busy, and a process waits for them when it ends.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

Result = TypeVar("Result")

_STOP_INTERVAL = 0.05


def run_in_thread(work: Callable[[], Result]) -> asyncio.Future[Result]:
    """Start the work, and return the future of its result; cancelling the future does not stop the work."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def run() -> None:
        try:
            complete = partial(future.set_result, work())
        except BaseException as error:
            complete = partial(future.set_exception, error)
        with suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(_unless_done, future, complete)

    threading.Thread(target=run, name="sqlmodel_alembic_async", daemon=True).start()
    return future


async def finish_in_thread(work: Callable[[], Result], stop: Callable[[], object]) -> Result:
    """Return the result of the work. If cancelled, call `stop` until the work has ended, then raise CancelledError."""
    future = run_in_thread(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            stop()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future], timeout=_STOP_INTERVAL)
        future.exception()  # asyncio logs an exception that is never retrieved.
        raise


def _unless_done(future: asyncio.Future[Result], complete: Callable[[], None]) -> None:
    if not future.done():
        complete()
