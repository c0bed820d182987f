"""The sources of an import: a path, an open text file, or a stream that can be read only once."""

import io
import os
import select
import stat
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from tempfile import TemporaryFile
from typing import Any, TextIO, cast

from ..statements.threads import finish_in_thread, run_in_thread
from .file_format import unreadable
from .key_index import temporary_storage_errors

TextSource = str | os.PathLike[str] | TextIO

_READ_SIZE = 2**16
POLL_INTERVAL = 0.05
_MAX_CHARACTER_BYTES = 16  # In any encoding, with a byte order mark before the character.

_in_use: set[int] = set()


@asynccontextmanager
async def open_source(source: TextSource) -> AsyncIterator[TextIO]:
    """Yield the source as a file that can be read twice; restore the position of a file that was already open."""
    if isinstance(source, str | os.PathLike):
        with _open_path(source) as file:
            async with open_source(file) as text:
                yield text
        return
    read: Any = getattr(source, "read", None)
    if not callable(read) or not isinstance(read(0), str):
        raise TypeError(f"the source must be a path or a file opened in text mode, not {type(source).__name__}")
    if source.isatty():
        raise ValueError("the source is a terminal, and waiting for it cannot be cancelled: pass a file or a pipe")
    if id(source) in _in_use:
        raise ValueError("another import is reading this file: open the file once for each import")
    _in_use.add(id(source))
    try:
        if (start := _position_of(source)) is None:
            async with _temporary_copy(source) as text:
                yield text
        else:
            try:
                yield source
            finally:
                source.seek(start)
    finally:
        _in_use.remove(id(source))


def _open_path(path: str | os.PathLike[str]) -> TextIO:
    return open(path, encoding="utf-8-sig", newline="", opener=NONBLOCKING_OPENER)


def _open_nonblocking(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(descriptor, True)
    return descriptor


# Without it, open() blocks on a named pipe until the other end is open.
NONBLOCKING_OPENER = _open_nonblocking if hasattr(os, "O_NONBLOCK") else None


def _position_of(file: TextIO) -> int | None:
    """Return the position in a file; None for a stream, and for a file that a `for` loop has begun to read."""
    try:
        with suppress(AttributeError, io.UnsupportedOperation):
            os.lseek(file.fileno(), 0, os.SEEK_CUR)  # A compressed file says that it can seek, even in a pipe.
        position = file.tell()
        file.seek(position)
    except OSError:
        return None
    return position


@asynccontextmanager
async def _temporary_copy(source: TextIO) -> AsyncIterator[TextIO]:
    """Copy on a thread: the source may wait for data that this event loop writes later."""
    is_cancelled = threading.Event()
    with temporary_storage_errors():
        copy = _temporary_file()
    try:
        if is_pollable(source):
            await finish_in_thread(lambda: _copy(source, copy, is_cancelled), is_cancelled.set)
        else:  # Its read() may block for ever.
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
    line = 1
    try:
        for text in _read_parts(source, is_cancelled):
            with temporary_storage_errors():
                copy.write(text)
            line += text.count("\n")
    except (UnicodeDecodeError, EOFError) as error:
        raise unreadable(line, error) from None


def _read_parts(source: TextIO, is_cancelled: threading.Event) -> Iterator[str]:
    """Yield the text of a source; if it can be polled, never block in read(), which would prevent closing it."""
    if is_pollable(source):
        from fcntl import ioctl
        from termios import FIONREAD

        poll = select.poll()
        # A socket whose other end only stops sending does not hang up.
        poll.register(source, select.POLLIN | getattr(select, "POLLRDHUP", 0))
        has_ended = False
        while not has_ended:
            if is_cancelled.is_set():
                return
            for _, events in poll.poll(POLL_INTERVAL * 1000):
                has_ended = events != select.POLLIN
                ready = int.from_bytes(ioctl(source, FIONREAD, bytes(4)), sys.byteorder)
                if ready >= _MAX_CHARACTER_BYTES:
                    yield source.read(ready // _MAX_CHARACTER_BYTES)
                elif not has_ended:
                    is_cancelled.wait(POLL_INTERVAL)  # read() would block on an incomplete character.
    while not is_cancelled.is_set() and (text := source.read(_READ_SIZE)):
        yield text


def is_pollable(file: TextIO) -> bool:
    """Tell whether a file is a pipe or a socket that can be polled."""
    try:
        buffer: Any = file.buffer
        mode = os.fstat(buffer.raw.fileno()).st_mode  # A compressed file has a descriptor too, but no `raw`.
    except (OSError, AttributeError):
        return False
    return hasattr(select, "poll") and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))
