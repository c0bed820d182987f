"""Sources of an import: files that are imported again, and pipes that can be read only once."""

import asyncio
import gzip
import importlib
import io
import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    ImportRejectedError,
    TransactionConflictError,
    count_pets,
    import_pets,
    list_pets,
)
from sqlmodel_alembic_async.services.csv_files.sources import open_source

from .imports import counts, rows

LINES = "name,external_ref\r\nRex,p1\r\nTom,p2\r\n"
PATIENCE = 10.0  # Seconds after which a test that hangs is ended.


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


# Files.


def file_behind_a_title(tmp_path: Path) -> TextIO:
    (tmp_path / "pets.csv").write_text(f"Pets of Zoë\r\n{LINES}", encoding="utf-8", newline="")
    file = (tmp_path / "pets.csv").open(encoding="utf-8", newline="")
    assert file.readline() == "Pets of Zoë\r\n"
    return file


@pytest.mark.parametrize(
    "open_file",
    [
        lambda folder: io.StringIO(LINES),
        lambda folder: io.StringIO("\ufeff" + LINES, newline=""),
        file_behind_a_title,
    ],
)
async def test_an_open_file_is_imported_again_from_where_it_was(
    session: AsyncSession, tmp_path: Path, open_file: Callable[[Path], TextIO]
) -> None:
    with open_file(tmp_path) as file:
        dry = await import_pets(session, file, dry_run=True)
        wet = await import_pets(session, file)
        with pytest.raises(ImportRejectedError, match="not a field"):
            await import_pets(session, file, columns={"external_ref": "reference"})
        again = await import_pets(session, file)

    assert (dry.created, wet.created, again.unchanged) == (2, 2, 2)


async def test_an_import_that_is_repeated_reads_an_open_file_again(db: Database) -> None:
    file = io.StringIO(LINES)
    attempts = 0

    async def work(session: AsyncSession) -> int:
        nonlocal attempts
        attempts += 1
        report = await import_pets(session, file)
        if attempts == 1:
            raise TransactionConflictError("try again")
        return report.created

    assert await db.run_transaction(work) == 2


async def test_an_import_that_is_cancelled_leaves_an_open_file_where_it_was(session: AsyncSession) -> None:
    file = io.StringIO(LINES)

    def cancel(done: int) -> None:
        task.cancel()

    task = asyncio.create_task(import_pets(session, file, progress=cancel))
    with suppress(asyncio.CancelledError):
        await task

    assert file.tell() == 0


async def test_an_open_file_is_read_by_one_import_at_a_time(session: AsyncSession) -> None:
    file = io.StringIO(LINES)

    async with open_source(file):
        with pytest.raises(ValueError, match="another import is reading this file"):
            await import_pets(session, file)

    assert (await import_pets(session, file)).created == 2


# Pipes.


@pytest.fixture
def pipe(stack: ExitStack) -> tuple[TextIO, BinaryIO]:
    """Both ends of a pipe, the writing end unbuffered."""
    reading, writing = os.pipe()
    reader = stack.enter_context(os.fdopen(reading, encoding="utf-8", newline=""))
    return reader, stack.enter_context(os.fdopen(writing, "wb", buffering=0))


@pytest.fixture
def named_pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


async def fed(importing: Awaitable[Any], writer: BinaryIO, pieces: list[bytes]) -> Any:
    """Write to the pipe in this event loop; where the import blocks the loop, end the pipe after a while."""
    watchdog = threading.Timer(PATIENCE, writer.close)
    watchdog.start()
    task = asyncio.ensure_future(importing)
    await asyncio.sleep(0)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.001)
    writer.close()
    watchdog.cancel()
    async with asyncio.timeout(PATIENCE):
        return await task


async def test_a_pipe_is_fed_by_the_loop_that_reads_it(session: AsyncSession, pipe: tuple[TextIO, BinaryIO]) -> None:
    reader, writer = pipe
    content = "name,notes\n" + "".join(f"Zoë {number},{'long ' * 10}🐶\n" for number in range(2000))
    pieces = [content.encode()[start : start + 4999] for start in range(0, len(content.encode()), 4999)]

    report = await fed(import_pets(session, reader), writer, pieces)

    assert report.created == 2000
    last = (await list_pets(session, order_by="-id", limit=1)).items[0]
    assert (last.name, last.notes) == ("Zoë 1999", "long " * 10 + "🐶")


async def test_a_pipe_of_which_lines_were_read_is_read_on(session: AsyncSession, pipe: tuple[TextIO, BinaryIO]) -> None:
    reader, writer = pipe
    writer.write("Pets of Zoë\nname\nRex\nTo".encode())
    reader.readline()

    report = await fed(import_pets(session, reader), writer, [b"m\nEve"])

    assert report.created == 3


async def test_a_named_pipe_waits_for_its_writer_without_stopping_the_loop(
    session: AsyncSession, named_pipe: Path
) -> None:
    watchdog = threading.Timer(PATIENCE, lambda: named_pipe.write_bytes(b""))
    watchdog.start()
    task = asyncio.create_task(import_pets(session, named_pipe))
    await asyncio.sleep(0)
    writing = os.open(named_pipe, os.O_WRONLY | os.O_NONBLOCK)  # It fails where there is no reader.
    os.write(writing, LINES.encode())
    os.close(writing)
    watchdog.cancel()

    async with asyncio.timeout(PATIENCE):
        assert (await task).created == 2


@pytest.mark.parametrize("content", [b"", b"name\nRe", b"x" * 5000 + "ë".encode()[:1]])
async def test_an_import_of_a_pipe_can_be_cancelled_and_the_pipe_closed(
    session: AsyncSession, pipe: tuple[TextIO, BinaryIO], content: bytes
) -> None:
    reader, writer = pipe
    watchdog = threading.Timer(PATIENCE, writer.close)
    watchdog.start()

    writer.write(content)
    task = asyncio.create_task(import_pets(session, reader))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    reader.close()

    assert not writer.closed
    watchdog.cancel()
    assert await count_pets(session) == 0


@pytest.mark.parametrize("has_ended", [False, True])
async def test_a_cancelled_import_reads_nothing_more_from_a_pipe(
    session: AsyncSession, pipe: tuple[TextIO, BinaryIO], has_ended: bool
) -> None:
    reader, writer = pipe
    has_begun, has_read_on = threading.Event(), threading.Event()

    class Slow(io.TextIOWrapper):
        def read(self, size: int | None = -1, /) -> str:
            text = super().read(size)
            if size and has_begun.is_set():
                has_read_on.set()
            if size:
                has_begun.set()
                released.wait(PATIENCE)
            return text

    released = threading.Event()
    slow = Slow(os.fdopen(os.dup(reader.fileno()), "rb"), encoding="utf-8", newline="")
    writer.write(b"name\n" + b"Rex\n" * 10_000)
    if has_ended:
        writer.close()
    task = asyncio.create_task(import_pets(session, slow))
    assert await asyncio.to_thread(has_begun.wait, PATIENCE)

    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    slow.close()

    assert not has_read_on.is_set()


async def test_a_pipe_that_was_read_already_says_that_it_can_be_read_only_once(
    session: AsyncSession, pipe: tuple[TextIO, BinaryIO]
) -> None:
    reader, writer = pipe
    await fed(import_pets(session, reader, dry_run=True), writer, [LINES.encode()])

    with pytest.raises(ImportRejectedError, match="a pipe can be read only once"):
        await import_pets(session, reader)


class OnlyOnce(io.StringIO):
    """A source that can not seek, and has no descriptor."""

    def tell(self) -> int:
        raise io.UnsupportedOperation


async def test_a_source_that_can_not_seek_is_read(session: AsyncSession) -> None:
    assert (await import_pets(session, OnlyOnce(LINES))).created == 2


async def test_a_source_that_blocks_stops_neither_the_loop_nor_a_cancellation() -> None:
    released, ended = threading.Event(), threading.Event()

    class Blocking(OnlyOnce):
        def read(self, size: int | None = -1, /) -> str:
            if not size:
                return ""
            released.wait(PATIENCE)
            ended.set()
            return ""

    nobody: Any = None
    task = asyncio.create_task(import_pets(nobody, Blocking()))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not ended.is_set()
    released.set()
    assert await asyncio.to_thread(ended.wait, PATIENCE)


async def test_an_error_of_the_source_is_the_callers() -> None:
    class Broken(OnlyOnce):
        def read(self, size: int | None = -1, /) -> str:
            if size:
                raise ConnectionResetError
            return ""

    with pytest.raises(ConnectionResetError):
        async with open_source(Broken()):
            pass


# A full disk.

_PROGRAM = """
import asyncio, contextlib, io, os, resource, threading
from sqlmodel_alembic_async import *
LINES = "name,external_ref\\n" + "".join(f"Rex,p{number}\\n" for number in range(60_000))
def feed(writing):
    with contextlib.suppress(BrokenPipeError):
        for start in range(0, len(LINES), 4096):
            os.write(writing, LINES[start : start + 4096].encode())
    os.close(writing)
async def main():
    async with Database("sqlite:///:memory:") as db:
        await db.create_tables()
        async with db.transaction() as session:
            {source}
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
            try:
                await import_pets(session, source)
            except StorageError as error:
                print(error, "|", error.__cause__)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                source.close()
asyncio.run(main())
"""
_PIPE = """
            reading, writing = os.pipe()
            source = os.fdopen(reading)
            threading.Thread(target=feed, args=[writing], daemon=True).start()
"""


@pytest.mark.parametrize("source", ["source = io.StringIO(LINES)", _PIPE])
def test_a_full_temporary_storage_is_told(source: str) -> None:
    program = _PROGRAM.replace("{source}", source)

    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)

    assert done.stderr == ""
    assert done.stdout.startswith(
        "the temporary storage is full or cannot be used: free space, or set TMPDIR to another folder | "
    )


# Streams that are no pipes.


async def test_a_socket_is_read_until_its_other_end_stops_sending(session: AsyncSession) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("r", encoding="utf-8", newline="") as source:
        task = asyncio.create_task(import_pets(session, source))
        for part in (b"na", b"me\nRex\nTo", b"m"):
            await asyncio.sleep(0.01)
            theirs.sendall(part)
        theirs.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(PATIENCE):
            report = await task

    assert counts(report) == (2, 0, 0, 0)


async def test_an_import_of_a_socket_can_be_cancelled_and_the_socket_closed(session: AsyncSession) -> None:
    ours, theirs = socket.socketpair()
    watchdog = threading.Timer(PATIENCE, theirs.shutdown, [socket.SHUT_WR])
    watchdog.start()
    with ours, theirs, ours.makefile("r") as source:
        task = asyncio.create_task(import_pets(session, source))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        source.close()

        assert watchdog.is_alive()
        watchdog.cancel()


@pytest.mark.parametrize("by_path", [False, True])
async def test_a_terminal_is_refused(by_path: bool) -> None:
    nobody: Any = None
    other_end, descriptor = pty.openpty()
    # Where the import waits for the terminal, end its input.
    watchdog = threading.Timer(PATIENCE, os.write, [other_end, b"name\n\x04\x04"])
    watchdog.start()
    with os.fdopen(descriptor) as terminal, pytest.raises(ValueError, match="is a terminal"):
        await import_pets(nobody, os.ttyname(descriptor) if by_path else terminal)
    watchdog.cancel()
    os.close(other_end)


@pytest.mark.parametrize("name", ["gzip", "bz2", "lzma"])
async def test_a_compressed_pipe_is_read(
    session: AsyncSession, pipe: tuple[TextIO, BinaryIO], name: str, stack: ExitStack
) -> None:
    reader, writer = pipe
    library = importlib.import_module(name)
    writer.write(library.compress(LINES.encode()))
    writer.close()

    with library.open(stack.enter_context(os.fdopen(os.dup(reader.fileno()), "rb")), "rt", newline="") as source:
        assert counts(await import_pets(session, source)) == (2, 0, 0, 0)


def cut_off(folder: Path) -> TextIO:
    content = gzip.compress(("name\n" + "".join(f"Rex {number}\n" for number in range(5000))).encode())
    (folder / "pets.csv.gz").write_bytes(content[:-30])
    return gzip.open(folder / "pets.csv.gz", "rt", newline="")


@pytest.mark.parametrize("seekable", [True, False])
async def test_a_compressed_file_that_is_cut_off_is_rejected(
    session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seekable: bool
) -> None:
    with cut_off(tmp_path) as file:
        if not seekable:
            next(file)
        with pytest.raises(ImportRejectedError, match="ends too early"):
            await import_pets(session, file, columns={} if seekable else {"Rex 0": "name"})

    assert await count_pets(session) == 0


async def test_a_pipe_in_another_encoding_is_rejected_as_a_file_is(
    session: AsyncSession, pipe: tuple[TextIO, BinaryIO]
) -> None:
    reader, writer = pipe
    task = asyncio.create_task(import_pets(session, reader))
    writer.write(b"name\n" + b"Rex\n" * 10_000)
    await asyncio.sleep(0.1)
    writer.write("Zoë\n".encode("latin-1") + b"Tom\n")
    writer.close()

    with pytest.raises(ImportRejectedError, match="cannot be decoded") as caught:
        await task

    assert 2 < caught.value.report.rejections[0].line <= 10_002


async def no_file() -> AsyncIterator[str]:
    yield "name\n"


@pytest.mark.parametrize("source", [["name\n"], b"pets.csv", io.BytesIO(b"name\n"), no_file(), None, 7])
async def test_what_is_no_text_file_is_refused(source: Any) -> None:
    nobody: Any = None

    with pytest.raises(TypeError, match=f"opened in text mode, not {type(source).__name__}"):
        await import_pets(nobody, source)


async def test_a_file_is_read_from_where_its_caller_left_it(session: AsyncSession, tmp_path: Path) -> None:
    (tmp_path / "pets.csv").write_text("Pets of 2026\nname\nRex\n")

    for read_a_line in (next, io.TextIOWrapper.readline):
        with (tmp_path / "pets.csv").open(newline="") as file:
            read_a_line(file)
            report = await import_pets(session, file)
        assert counts(report) == (1, 0, 0, 0)


async def test_a_file_that_was_read_already_says_so(tmp_path: Path) -> None:
    nobody: Any = None
    file = rows("name", "Rex")
    file.read()

    with pytest.raises(ImportRejectedError, match="read to its end"):
        await import_pets(nobody, file)


@pytest.mark.parametrize("opened", [True, False])
async def test_a_pipe_is_read_though_it_can_be_read_only_once(session: AsyncSession, opened: bool) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"name,microchip\nRex,\nTom,276098102345678\n")
    os.close(writing)

    with os.fdopen(reading) as pipe:
        report = await import_pets(session, pipe if opened else f"/dev/fd/{pipe.fileno()}")

    assert counts(report) == (2, 0, 0, 0)


async def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    nobody: Any = None
    (tmp_path / "pets.csv").write_bytes(b"name\nRex\n")

    with (tmp_path / "pets.csv").open("rb") as file, pytest.raises(TypeError, match="opened in text mode"):
        await import_pets(nobody, file)  # type: ignore[arg-type]
