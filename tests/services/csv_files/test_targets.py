"""Targets of an export: files that are replaced, and pipes and devices that are written to."""

import asyncio
import io
import os
import select
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from sqlmodel_alembic_async import AsyncSession, Database, PetCreate, create_pet, create_pets, export_pets
from sqlmodel_alembic_async.services.csv_files import sources, targets

from ...stress.measures import becomes_true
from .exports import HEADER

PATIENCE = 10.0  # Seconds after which a test that hangs is ended.


async def test_a_file_is_replaced_when_everything_is_written_and_is_its_users_alone(
    session: AsyncSession, tmp_path: Path
) -> None:
    target = tmp_path / "pets.csv"
    target.write_text("the last export")
    await create_pet(session, PetCreate(name="Zoë"))

    assert await export_pets(session, str(target)) == 1

    assert target.read_bytes().decode() == HEADER + "Zoë,,,,unknown,,,false,,,active,,,,,,,,,,,,\r\n"
    assert target.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["pets.csv"]


async def test_what_a_link_points_to_is_replaced_and_the_link_stays(session: AsyncSession, tmp_path: Path) -> None:
    (tmp_path / "2026").mkdir()
    (tmp_path / "pets.csv").symlink_to(tmp_path / "2026" / "pets.csv")

    for _ in range(2):
        await export_pets(session, tmp_path / "pets.csv")

    assert (tmp_path / "pets.csv").is_symlink()
    assert (tmp_path / "2026" / "pets.csv").read_bytes().decode() == HEADER


async def test_an_export_that_fails_leaves_the_last_one(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "pets.csv"
    target.write_text("the last export")

    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex"))
        monkeypatch.setattr("sqlmodel_alembic_async.services.csv_files.exporting.escaped", None)
        with pytest.raises(TypeError):
            await export_pets(session, target)

    assert target.read_text() == "the last export"
    assert os.listdir(tmp_path) == ["pets.csv"]


async def test_a_device_is_written_to_and_not_replaced(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex"))

    assert await export_pets(session, "/dev/null") == 1
    assert not Path("/dev/null").is_file()


PRINT_EXPORT = """
import asyncio
from sqlmodel_alembic_async import Database, PetCreate, create_pet, export_pets

async def main():
    async with Database("sqlite://") as db:
        await db.create_tables()
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Zo\\u00eb"))
            await export_pets(session, "/dev/stdout")

asyncio.run(main())
"""


def test_a_pipe_is_written_in_utf_8_whatever_the_locale_is() -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run([sys.executable, "-c", PRINT_EXPORT], env={**os.environ, **locale}, capture_output=True)

    assert "\r\nZoë,".encode() in ended.stdout, ended.stderr


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_pipe_is_written_to_though_this_event_loop_reads_it(
    session: AsyncSession, tmp_path: Path, is_open: bool
) -> None:
    await create_pets(session, (PetCreate(name=f"Zoë {number}", notes="🐶" * 50) for number in range(2500)))
    await export_pets(session, tmp_path / "file.csv")
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    # A pipe whose reader goes away refuses what is written to it: then the test fails, and does not hang.
    watchdog = threading.Timer(PATIENCE, os.close, [reading])
    watchdog.start()
    content = b""

    async def write() -> int:
        if not is_open:
            return await export_pets(session, tmp_path / "pipe")
        with (tmp_path / "pipe").open("w", encoding="utf-8", newline="") as file:
            return await export_pets(session, file)

    task = asyncio.create_task(write())
    while not task.done():
        await asyncio.sleep(0.001)
        with suppress(BlockingIOError):
            content += os.read(reading, 2**20)
    watchdog.cancel()
    os.close(reading)

    assert await task == 2500
    assert content == (tmp_path / "file.csv").read_bytes()


@pytest.mark.parametrize("kind", ["full", "full and open", "without a reader"])
async def test_an_export_to_a_pipe_can_be_cancelled(session: AsyncSession, tmp_path: Path, kind: str) -> None:
    await create_pets(session, (PetCreate(name="Rex", notes="x" * 200) for _ in range(1000)))
    os.mkfifo(tmp_path / "pipe")
    with ExitStack() as stack:
        if kind != "without a reader":
            reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
            stack.callback(os.close, reading)
        target: Any = tmp_path / "pipe"
        if kind == "full and open":
            target = stack.enter_context(target.open("w", encoding="utf-8", newline=""))
        watchdog = threading.Timer(PATIENCE, (tmp_path / "pipe").read_bytes)
        watchdog.daemon = True
        watchdog.start()

        task = asyncio.create_task(export_pets(session, target))
        if kind != "without a reader":
            assert await becomes_true(lambda: bool(select.select([reading], [], [], 0)[0]), within=PATIENCE)
        await asyncio.sleep(4 * sources.POLL_INTERVAL)  # As often it is looked whether the other end is ready.
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert watchdog.is_alive()
        watchdog.cancel()
        for thread in threading.enumerate():
            if thread.name == "sqlmodel_alembic_async":
                await asyncio.to_thread(thread.join, PATIENCE)


async def test_a_pipe_whose_reader_goes_away_is_the_callers_error(session: AsyncSession, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(BrokenPipeError), (tmp_path / "pipe").open("w", encoding="utf-8", newline="") as file:
        os.close(reading)
        await export_pets(session, file)


async def test_a_pipe_that_can_not_be_opened_is_the_callers_error(
    session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError

    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(targets, "_open_path", refuse)

    with pytest.raises(PermissionError):
        await export_pets(session, tmp_path / "pipe")


async def test_a_folder_that_is_missing_is_the_callers_error(session: AsyncSession, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await export_pets(session, tmp_path / "missing" / "pets.csv")


async def test_an_open_file_is_written_to_from_where_it_stands_and_stays_open() -> None:
    file = io.StringIO("Pets of 2026\n")
    file.seek(0, io.SEEK_END)

    async with targets.open_target(file) as write:
        await write("name\r\n")
        await write("Zoë\r\n")

    assert file.getvalue() == "Pets of 2026\nname\r\nZoë\r\n"
    assert not file.closed


async def test_a_file_is_there_only_when_all_of_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, replace = [], os.replace
    monkeypatch.setattr(
        os, "replace", lambda part, path: sizes.append(Path(part).stat().st_size) or replace(part, path)
    )
    async with targets.open_target(tmp_path / "pets.csv") as write:
        await write("name\r\n")
        there_meanwhile = (tmp_path / "pets.csv").exists()

    assert not there_meanwhile
    assert sizes == [6]
    assert (tmp_path / "pets.csv").read_bytes() == b"name\r\n"


async def test_a_cancelled_export_writes_nothing_more_to_an_open_pipe(session: AsyncSession) -> None:
    await create_pets(session, (PetCreate(name="Rex", notes="x" * 5000) for _ in range(1000)))
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w", encoding="utf-8", newline="") as writer:
        content: list[bytes] = []
        thread = threading.Thread(target=lambda: content.extend(iter(lambda: os.read(reader.fileno(), 4096), b"")))
        thread.start()
        task = asyncio.create_task(export_pets(session, writer))
        assert await becomes_true(lambda: len(content) > 20, within=PATIENCE)

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        writer.write("the caller's own")
        writer.close()
        await asyncio.to_thread(thread.join, PATIENCE)

    assert b"".join(content).endswith(b"the caller's own")
    assert len(b"".join(content)) < 5_000_000


@pytest.mark.parametrize("target", [io.BytesIO(), b"pets.csv", [], None])
async def test_a_target_that_is_no_text_file_is_refused(session: AsyncSession, target: Any) -> None:
    with pytest.raises(TypeError, match=f"opened in text mode, not {type(target).__name__}"):
        await export_pets(session, target)


@pytest.mark.parametrize("is_pipe", [False, True])
async def test_a_character_that_the_target_cannot_hold_is_told_without_the_row(
    session: AsyncSession, tmp_path: Path, is_pipe: bool
) -> None:
    await create_pet(session, PetCreate(name="Łukasz"))
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w", encoding="latin-1") as pipe:
        target = pipe if is_pipe else (tmp_path / "pets.csv").open("w", encoding="latin-1")
        with target, pytest.raises(ValueError, match="lacks a character") as caught:
            await export_pets(session, target)

    assert not isinstance(caught.value, UnicodeError)
    assert caught.value.__suppress_context__
