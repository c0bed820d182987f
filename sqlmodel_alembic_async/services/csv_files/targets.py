"""The targets of an export: a path, whose file is replaced at the end, or an open text file."""

import asyncio
import errno
import os
import select
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TextIO

from .sources import NONBLOCKING_OPENER, POLL_INTERVAL, is_pipe
from .threads import run_in_thread

TextTarget = str | os.PathLike[str] | TextIO
Write = Callable[[str], Awaitable[object]]

_MAX_CHARACTER_BYTES = 8  # In any encoding.


@asynccontextmanager
async def open_target(target: TextTarget) -> AsyncIterator[Write]:
    """Yield the function that writes a text to the target."""
    if not isinstance(target, str | os.PathLike):
        async with _writing_to(target) as write:
            yield write
        return
    path = Path(target)
    with _replacing(path) if _can_be_replaced(path) else await _open_pipe(path) as file:
        async with _writing_to(file) as write:
            yield write


def _can_be_replaced(path: Path) -> bool:
    return path.is_file() or not path.exists()  # Else it is a device or a pipe.


async def _open_pipe(path: Path) -> TextIO:
    while True:
        try:
            return _open_path(path)
        except OSError as error:
            if error.errno != errno.ENXIO:  # A pipe without a reader.
                raise
        await asyncio.sleep(POLL_INTERVAL)


def _open_path(path: Path) -> TextIO:
    return open(path, "w", encoding="utf-8", newline="", opener=NONBLOCKING_OPENER)


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    path = path.resolve()  # Replace the file that a link points to, not the link.
    # A failed export must leave the file of the last export unchanged.
    with NamedTemporaryFile("w", encoding="utf-8", newline="", dir=path.parent, delete=False) as part:
        try:
            yield part  # type: ignore[misc]  # it is a text file
            part.close()
            os.replace(part.name, path)
        except BaseException:
            os.unlink(part.name)
            raise


@asynccontextmanager
async def _writing_to(file: TextIO) -> AsyncIterator[Write]:
    is_cancelled = threading.Event()

    async def write(text: str) -> None:
        if is_pipe(file):
            # Write on a thread: the pipe may stay full until this event loop reads from it.
            await run_in_thread(lambda: _write_to_pipe(file, text, is_cancelled))
        else:
            file.write(text)

    try:
        yield write
    finally:
        is_cancelled.set()


def _write_to_pipe(pipe: TextIO, text: str, is_cancelled: threading.Event) -> None:
    """Write without blocking in write(), because the pipe's owner could not close it then."""
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    size = select.PIPE_BUF // _MAX_CHARACTER_BYTES
    for start in range(0, len(text), size):
        while not poll.poll(POLL_INTERVAL * 1000):
            if is_cancelled.is_set():
                return
        pipe.write(text[start : start + size])
        pipe.flush()
