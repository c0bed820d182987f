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

from ..statements.threads import finish_in_thread
from .sources import NONBLOCKING_OPENER, POLL_INTERVAL, is_pollable

TextTarget = str | os.PathLike[str] | TextIO
Write = Callable[[str], Awaitable[object]]

_MAX_CHARACTER_BYTES = 8


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
    return path.is_file() or not path.exists()


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
    try:
        file.write("")
    except (AttributeError, TypeError):
        message = f"the target must be a path or a file opened in text mode, not {type(file).__name__}"
        raise TypeError(message) from None

    async def write(text: str) -> None:
        try:
            if is_pollable(file):
                # Write on a thread: the pipe may stay full until this event loop reads from it.
                is_cancelled = threading.Event()
                await finish_in_thread(lambda: _write_polling(file, text, is_cancelled), is_cancelled.set)
            else:
                file.write(text)
        except UnicodeEncodeError:  # The error quotes the text.
            raise ValueError('the encoding of the target lacks a character: open it with encoding="utf-8"') from None

    yield write


def _write_polling(pipe: TextIO, text: str, is_cancelled: threading.Event) -> None:
    """Write without blocking in write(), which would prevent the owner of the pipe from closing it."""
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    size = select.PIPE_BUF // _MAX_CHARACTER_BYTES
    for start in range(0, len(text), size):
        while not is_cancelled.is_set() and not poll.poll(POLL_INTERVAL * 1000):
            pass
        if is_cancelled.is_set():
            return
        pipe.write(text[start : start + size])
        pipe.flush()
