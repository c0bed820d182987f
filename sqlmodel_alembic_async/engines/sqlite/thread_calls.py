"""Call functions in a connection's thread, and pass their results to futures of an event loop."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any


def call_once(function: Callable[[], Any]) -> Callable[[], Any]:
    """Return a callable that drops its reference to the function when it is called.

    aiosqlite's thread keeps a reference to its last call, which must not keep the connection alive.
    """
    calls = [function]
    return lambda: calls.pop()()


def with_future(future: asyncio.Future[Any], function: Callable[[], Any]) -> Callable[[], None]:
    """Return a callable for the thread: it calls the function, and sets the future's result in its event loop.

    It does nothing if the future is cancelled, and drops the result if the event loop is closed.
    """

    def work() -> None:
        if future.cancelled():
            return
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = future.set_result, function()
        except BaseException as error:  # raised again where the future is awaited
            outcome = future.set_exception, error
        with contextlib.suppress(RuntimeError):
            future.get_loop().call_soon_threadsafe(_resolve, future, *outcome)

    return work


def _resolve(future: asyncio.Future[Any], resolve: Callable[[Any], None], outcome: Any) -> None:
    if not future.done():
        resolve(outcome)
