"""The sources of an import: a path, an open text file, or a stream that can be read only once."""

import os
import select
import stat
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from tempfile import TemporaryFile
from typing import TextIO, cast

from .key_index import temporary_storage_errors
from .threads import run_in_thread

TextSource = str | os.PathLike[str] | TextIO

_READ_SIZE = 2**16  # Characters.
POLL_INTERVAL = 0.05  # Seconds between two checks whether a copy was cancelled.
_MAX_CHARACTER_BYTES = 16  # In any encoding, with a byte order mark before the character.


@asynccontextmanager
async def open_source(source: TextSource) -> AsyncIterator[TextIO]:
    """Yield the source as a file that can be read twice; restore the position of a file that was already open."""
    if isinstance(source, str | os.PathLike):
        with _open_path(source) as file:
            async with open_source(file) as text:
                yield text
    elif not isinstance(source.read(0), str):
        raise TypeError("the source must be a path or a file opened in text mode, not in binary mode")
    elif (start := _position_of(source)) is None:
        async with _temporary_copy(source) as text:
            yield text
    else:
        try:
            yield source
        finally:
            source.seek(start)


def _open_path(path: str | os.PathLike[str]) -> TextIO:
    return open(path, encoding="utf-8-sig", newline="", opener=NONBLOCKING_OPENER)


def _open_nonblocking(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(descriptor, True)
    return descriptor


# Without it, open() blocks on a named pipe until the other end is open.
NONBLOCKING_OPENER = _open_nonblocking if hasattr(os, "O_NONBLOCK") else None


def _position_of(file: TextIO) -> int | None:
    """Return the position in a file; None for a pipe, and for a file that a `for` loop has begun to read."""
    try:
        position = file.tell()
        file.seek(position)
    except OSError:
        return None
    return position


@asynccontextmanager
async def _temporary_copy(source: TextIO) -> AsyncIterator[TextIO]:
    # Copy on a thread: the source may wait for data that this event loop writes later.
    is_cancelled = threading.Event()
    with temporary_storage_errors():
        copy = _temporary_file()
    try:
        await run_in_thread(lambda: _copy(source, copy, is_cancelled))
        with temporary_storage_errors():
            copy.seek(0)
        yield copy
    finally:
        is_cancelled.set()
        with suppress(OSError):  # close() writes the buffer, which is no longer needed.
            copy.close()


def _temporary_file() -> TextIO:
    return cast(TextIO, TemporaryFile("w+", encoding="utf-8", errors="surrogatepass", newline=""))


def _copy(source: TextIO, copy: TextIO, is_cancelled: threading.Event) -> None:
    for text in _read_parts(source, is_cancelled):
        with temporary_storage_errors():
            copy.write(text)


def _read_parts(source: TextIO, is_cancelled: threading.Event) -> Iterator[str]:
    """Yield the text of a source; never block in the read() of a pipe, because its owner could not close it then."""
    if is_pipe(source):
        from fcntl import ioctl  # Not every system has it.
        from termios import FIONREAD

        poll = select.poll()
        poll.register(source, select.POLLIN)
        has_ended = False
        while not has_ended:
            if is_cancelled.is_set():
                return
            for _, events in poll.poll(POLL_INTERVAL * 1000):
                has_ended = bool(events & select.POLLHUP)
                ready = int.from_bytes(ioctl(source, FIONREAD, bytes(4)), sys.byteorder)
                if ready >= _MAX_CHARACTER_BYTES:
                    yield source.read(ready // _MAX_CHARACTER_BYTES)
                elif not has_ended:
                    is_cancelled.wait(POLL_INTERVAL)  # read() would block on an incomplete character.
    yield from iter(lambda: source.read(_READ_SIZE), "")


def is_pipe(file: TextIO) -> bool:
    """Tell whether a file is a pipe, on a system that can poll it."""
    try:
        return hasattr(select, "poll") and stat.S_ISFIFO(os.fstat(file.fileno()).st_mode)
    except (OSError, AttributeError):  # It has no descriptor.
        return False
