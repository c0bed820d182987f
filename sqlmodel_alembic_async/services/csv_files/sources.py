"""Files to read: a path, an open text file, or a source that can be read only once."""

import os
import select
import stat
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from tempfile import TemporaryFile
from typing import TextIO, cast

from .key_index import temporary_storage
from .threads import started

Source = str | os.PathLike[str] | TextIO

_PIECE = 2**16
MOMENT = 0.05  # Seconds between two looks at whether a copy is still wanted.
_LONGEST_CHARACTER = 16  # Bytes, in any encoding, a byte order mark before it included.


@asynccontextmanager
async def opened(source: Source) -> AsyncIterator[TextIO]:
    """Open a path, or give an open text file, as a file that can be read twice; an open file is left where it was."""
    if isinstance(source, str | os.PathLike):
        with _open(source) as file:
            async with opened(file) as text:
                yield text
    elif not isinstance(source.read(0), str):
        raise TypeError("expected a file that is opened as text")
    elif (start := _place_in(source)) is None:
        async with _copied(source) as text:
            yield text
    else:
        try:
            yield source
        finally:
            source.seek(start)


def _open(path: str | os.PathLike[str]) -> TextIO:
    return open(path, encoding="utf-8-sig", newline="", opener=WITHOUT_WAITING)


def _open_without_waiting(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(descriptor, True)
    return descriptor


# The `opener` of a named pipe, for which open() would wait until it has another end.
WITHOUT_WAITING = _open_without_waiting if hasattr(os, "O_NONBLOCK") else None


def _place_in(file: TextIO) -> int | None:
    """Return where a file stands; None for a pipe, and for a file of which a for loop has read the first lines."""
    try:
        place = file.tell()
        file.seek(place)
    except OSError:
        return None
    return place


@asynccontextmanager
async def _copied(source: TextIO) -> AsyncIterator[TextIO]:
    # On a thread, for the source may wait for what this event loop is yet to write.
    is_given_up = threading.Event()
    with temporary_storage():
        copy = _temporary_file()
    try:
        await started(lambda: _copy(source, copy, is_given_up))
        with temporary_storage():
            copy.seek(0)
        yield copy
    finally:
        is_given_up.set()
        with suppress(OSError):  # What could not be written is not needed any more.
            copy.close()


def _temporary_file() -> TextIO:
    return cast(TextIO, TemporaryFile("w+", encoding="utf-8", errors="surrogatepass", newline=""))


def _copy(source: TextIO, copy: TextIO, is_given_up: threading.Event) -> None:
    for piece in _pieces(source, is_given_up):
        with temporary_storage():
            copy.write(piece)


def _pieces(source: TextIO, is_given_up: threading.Event) -> Iterator[str]:
    """Yield the text of a source. A pipe is never waited for in read(): meanwhile its owner could not close it."""
    if is_pipe(source):
        from fcntl import ioctl  # Not every system has it.
        from termios import FIONREAD

        poll = select.poll()
        poll.register(source, select.POLLIN)
        has_ended = False
        while not has_ended:
            if is_given_up.is_set():
                return
            for _, events in poll.poll(MOMENT * 1000):
                has_ended = bool(events & select.POLLHUP)
                ready = int.from_bytes(ioctl(source, FIONREAD, bytes(4)), sys.byteorder)
                if ready >= _LONGEST_CHARACTER:
                    yield source.read(ready // _LONGEST_CHARACTER)
                elif not has_ended:
                    is_given_up.wait(MOMENT)  # A part of a character would be waited for.
    yield from iter(lambda: source.read(_PIECE), "")


def is_pipe(file: TextIO) -> bool:
    """Tell whether a file is a pipe of which can be asked whether it is ready."""
    try:
        return hasattr(select, "poll") and stat.S_ISFIFO(os.fstat(file.fileno()).st_mode)
    except (OSError, AttributeError):  # It has no descriptor.
        return False
