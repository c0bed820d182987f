"""Where an export is written to: a path, whose file is replaced in the end, or an open text file."""

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

from .sources import MOMENT, WITHOUT_WAITING, Source, is_pipe
from .threads import started

Write = Callable[[str], Awaitable[object]]

_LONGEST_CHARACTER = 8  # Bytes, in any encoding.


@asynccontextmanager
async def writable(target: Source) -> AsyncIterator[Write]:
    """Give the function that writes a text to the target."""
    if not isinstance(target, str | os.PathLike):
        async with _writing_to(target) as write:
            yield write
        return
    path = Path(target)
    with _replaced(path) if _can_be_replaced(path) else await _opened(path) as file:
        async with _writing_to(file) as write:
            yield write


def _can_be_replaced(path: Path) -> bool:
    return path.is_file() or not path.exists()  # Else it is a device, or a pipe.


async def _opened(path: Path) -> TextIO:
    while True:
        try:
            return _open(path)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        await asyncio.sleep(MOMENT)  # Until the pipe has a reader.


def _open(path: Path) -> TextIO:
    return open(path, "w", encoding="utf-8", newline="", opener=WITHOUT_WAITING)


@contextmanager
def _replaced(path: Path) -> Iterator[TextIO]:
    path = path.resolve()  # What a link points to is replaced, not the link.
    # Who exports again must not lose the last export where this one fails.
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
    is_given_up = threading.Event()

    async def write(text: str) -> None:
        if is_pipe(file):
            # On a thread, for the pipe may be full until this event loop reads from it.
            await started(lambda: _write_to_pipe(file, text, is_given_up))
        else:
            file.write(text)

    try:
        yield write
    finally:
        is_given_up.set()


def _write_to_pipe(pipe: TextIO, text: str, is_given_up: threading.Event) -> None:
    """Write as much at a time as the pipe takes without waiting: meanwhile its owner could not close it."""
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    size = select.PIPE_BUF // _LONGEST_CHARACTER
    for start in range(0, len(text), size):
        while not poll.poll(MOMENT * 1000):
            if is_given_up.is_set():
                return
        pipe.write(text[start : start + size])
        pipe.flush()
