"""Run one Alembic command at a time in each process: Alembic keeps its state in module globals."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from alembic import context, op

_POLL_INTERVAL = 0.02

_mutex = threading.Lock()
_owner: asyncio.AbstractEventLoop | None = None


def _reset_after_fork() -> None:
    """Release the lock in a child process: the thread that would release it does not exist there."""
    global _owner
    _mutex._at_fork_reinit()  # type: ignore[attr-defined]  # not in typeshed
    _owner = None


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_reset_after_fork)


@asynccontextmanager
async def one_command_per_process() -> AsyncIterator[None]:
    """Wait until no other task, thread or event loop of this process runs a command through this function.

    The command of an event loop that has been closed does not count: it never ends.
    """
    loop = asyncio.get_running_loop()
    while not _acquire(loop):  # noqa: ASYNC110  # an asyncio.Event works in one event loop only
        await asyncio.sleep(_POLL_INTERVAL)
    try:
        yield
    finally:
        _release(loop)


def _acquire(loop: asyncio.AbstractEventLoop) -> bool:
    global _owner
    with _mutex:
        is_free = _owner is None or _owner.is_closed()
        if is_free:
            _owner = loop
    return is_free


def _release(loop: asyncio.AbstractEventLoop) -> None:
    global _owner
    with _mutex:
        if _owner is loop:  # Another loop may have become the owner after this one was closed.
            _owner = None


@contextmanager
def outer_proxies_restored() -> Iterator[None]:
    """Restore `alembic.context` and `alembic.op` at the end of the block.

    So an application's env.py can await a command of this package before it calls `context.configure`.
    """
    outer = [proxy for module in (context, op) if (proxy := getattr(module, "_proxy", None)) is not None]
    try:
        yield
    finally:
        for proxy in outer:
            proxy._install_proxy()
