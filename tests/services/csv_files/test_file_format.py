"""What a CSV file may look like."""

import asyncio
import csv
import io
import threading
import time
import tracemalloc
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    ImportRejectedError,
    count_pets,
    import_pets,
)
from sqlmodel_alembic_async.services.csv_files import file_format

from .imports import counts, pets_of, reasons, rejected, rows


async def batches_of(
    file: TextIO, columns: Mapping[str, str | None] | None = None
) -> list[list[file_format.NumberedRow]]:
    return [batch async for batch in file_format.CSVFile(file, columns or {}).batches()]


async def test_foreign_headers_are_mapped_and_ignored_only_when_told(session: AsyncSession) -> None:
    lines = ("Animal's Name,Kind,Licence", "Rex,dog,7")

    report = await rejected(session, *lines, columns={"Animal's Name": "name"})
    assert reasons(report) == [(1, "Kind", None), (1, "Licence", None)]
    await import_pets(session, rows(*lines), columns={"Animal's Name": "name", "Kind": "species", "Licence": None})

    assert [(pet.name, pet.species) for pet in await pets_of(session)] == [("Rex", "dog")]


@pytest.mark.parametrize(
    ("header", "columns", "expected"),
    [
        ("", {}, [(1, None)]),
        ("a", {"a": None}, [(1, None)]),
        ("name,nmae", {}, [(1, "nmae")]),
        ("name,id", {}, [(1, "id")]),
        ("name,name", {}, [(1, "name"), (1, "name")]),
        ("name,", {}, [(1, "")]),
        ("name,x,x", {"x": None}, [(1, "x"), (1, "x")]),
        ("name,Name", {"Name": "name"}, [(1, "Name")]),
        ("name", {"Breed": "breed"}, [(1, "Breed")]),
        ("name,Breed", {"Breed": "bred"}, [(1, "Breed")]),
    ],
)
async def test_the_header_is_checked_before_any_row(
    header: str, columns: dict[str, str | None], expected: list[tuple[int, str]]
) -> None:
    nobody: Any = None  # A session that can not be asked.

    report = await rejected(nobody, header, '"', columns=columns)

    assert [(rejection.line, rejection.column) for rejection in report.rejections] == expected
    assert report.rows == 0


async def test_an_unknown_column_or_field_is_told_with_the_nearest_one() -> None:
    header = "name,Animal Breed,Colour," + ",".join(f"Weight {number}" for number in range(30))
    nobody: Any = None

    report = await rejected(nobody, header, columns={"name": "nme", "Animal Breed": "x"})

    reasons = [rejection.reason for rejection in report.rejections]
    assert reasons[0].startswith(
        "mapped to 'nme', which is not a field (similar to name): map it to one of name, species,"
    )
    assert reasons[1].startswith("mapped to 'x', which is not a field: map it to one of name, species,")
    assert reasons[2] == "unknown column (similar to color): map it to a field in `columns`, or to None to ignore it"
    assert (
        reasons[19] == "unknown column (similar to weight_g): map it to a field in `columns`, or to None to ignore it"
    )
    assert reasons[20] == "unknown column: map it to a field in `columns`, or to None to ignore it"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
async def test_a_file_may_look_in_many_ways(
    session: AsyncSession, tmp_path: Path, delimiter: str, line_end: str, bom: str
) -> None:
    cells = [["name", "notes"], ["Rex", f'"first{line_end}second, ""quoted"""'], ["Zoë", "x"], ["", ""], []]
    text = bom + "".join(delimiter.join(line) + line_end for line in cells)
    (tmp_path / "pets.csv").write_bytes(text.encode())

    for source in (tmp_path / "pets.csv", str(tmp_path / "pets.csv"), io.StringIO(text, newline="")):
        assert counts(await import_pets(session, source)) == (2, 0, 0, 0)

    pets = await pets_of(session)
    assert [pet.name for pet in pets] == ["Rex", "Zoë"] * 3
    assert pets[0].notes == f'first{line_end}second, "quoted"'


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
async def test_a_header_may_be_quoted(session: AsyncSession, delimiter: str, bom: str) -> None:
    text = bom + delimiter.join(['"name"', '"species"']) + "\n" + delimiter.join(['"Rex, the; dog"', '"dog"']) + "\n"

    await import_pets(session, io.StringIO(text))

    assert [(pet.name, pet.species) for pet in await pets_of(session)] == [("Rex, the; dog", "dog")]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'name,notes\nRex,x\nTom,"never closed\nMax,y\n', 3),
        (b'name,notes\nRex,"closed"too early\n', 2),
        (b"name,notes\nRex,x\nZo\xeb,y\n", 1),  # Text is decoded in pieces, which are larger.
        (b'"name"s;notes\nRex,x\n', 1),
    ],
)
@pytest.mark.parametrize("keep_going", [False, True])
async def test_what_can_not_be_read_ends_the_import(
    session: AsyncSession, tmp_path: Path, content: bytes, line: int, keep_going: bool
) -> None:
    (tmp_path / "pets.csv").write_bytes(content)

    with pytest.raises(ImportRejectedError) as caught:
        await import_pets(session, tmp_path / "pets.csv", keep_going=keep_going)

    assert [rejection.line for rejection in caught.value.report.rejections] == [line]
    assert str(caught.value).startswith(f"nothing was imported: line {line}: ")
    assert await count_pets(session) == 0


async def test_notes_of_any_length_are_read_and_the_csv_module_is_left_as_it_was(session: AsyncSession) -> None:
    notes = "long " * 40_000

    await import_pets(session, rows("name,notes", f"Rex,{notes}"))

    assert (await pets_of(session))[0].notes == notes.strip()
    assert csv.field_size_limit() == 131072


async def test_a_header_of_any_length_is_read(session: AsyncSession) -> None:
    long = "long " * 40_000

    report = await import_pets(session, rows(f"name,{long}", "Rex,"), columns={long.strip(): None})

    assert counts(report) == (1, 0, 0, 0)


def test_two_threads_that_read_leave_the_csv_module_as_it_was() -> None:
    second_reads, first_has_ended = threading.Event(), threading.Event()
    notes = "x" * 200_000
    lines = ("name,notes", "Rex,", f"Tom,{notes}")

    class File(io.StringIO):
        def __init__(self, meet: Callable[[], object]) -> None:
            super().__init__("\r\n".join(lines))
            self._meet = meet

        def __next__(self) -> str:
            self._meet()
            return super().__next__()

    def read(file: io.StringIO) -> list[str]:
        return [cells[1] for batch in asyncio.run(batches_of(file)) for _, _, cells in batch]

    def wait_for_the_first() -> None:
        second_reads.set()
        assert first_has_ended.wait(10)

    with ThreadPoolExecutor() as threads:
        first = threads.submit(read, File(lambda: second_reads.wait(10)))
        second = threads.submit(read, File(wait_for_the_first))
        assert first.result(10) == ["", notes]
        first_has_ended.set()
        assert second.result(10) == ["", notes]

    assert csv.field_size_limit() == 131072


async def test_a_batch_has_fewer_rows_where_they_are_long() -> None:
    lines = [f"Rex {number},{'x' * 10_000}" for number in range(1000)]

    batches = await batches_of(rows("name,notes", *lines))

    assert [len(batch) for batch in batches] == [100] * 10
    assert [cells[0] for batch in batches for _, _, cells in batch] == [f"Rex {number}" for number in range(1000)]


async def test_columns_that_are_ignored_take_no_memory() -> None:
    others = [f"c{number}" for number in range(5000)]
    file = rows(",".join(["name", *others]), *[",".join(["Rex", *others])] * 300)
    columns = dict.fromkeys(others)
    tracemalloc.start()

    read = await batches_of(file, columns)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(map(len, read)) == 300
    assert read[0][0] == (2, 5001, ["Rex"])
    assert peak < 10_000_000


@pytest.mark.parametrize("number", [999, 1000, 1001])
async def test_no_batch_is_empty(number: int) -> None:
    batches = await batches_of(rows("name", *["Rex"] * number, *["", ""] * 1000))

    assert [len(batch) for batch in batches] == [min(number, 1000), number - 1000][: 1 + (number > 1000)]


@pytest.mark.parametrize(("blank", "number"), [("", 100_000), ("," * 100_000, 1000), (" " * 100_000, 1000)])
async def test_blank_lines_without_end_do_not_stop_the_loop(blank: str, number: int) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    batches = await batches_of(rows("name", "Rex", *[blank] * number))
    counting.cancel()

    assert sum(map(len, batches)) == 1
    assert turns >= 99


@pytest.mark.parametrize("keep_going", [False, True])
async def test_a_quote_that_is_never_closed_is_told_before_the_whole_file_is_read(
    session: AsyncSession, keep_going: bool
) -> None:
    lines = ["name,notes", "Rex,x", 'Tom,"never closed', *["Max,y"] * 1_000_000]

    with pytest.raises(ImportRejectedError) as caught:
        await import_pets(session, rows(*lines), keep_going=keep_going)

    reason = "a cell is longer than 4,000,000 characters: add the quote that is missing"
    assert [str(rejection) for rejection in caught.value.report.rejections] == [f"line 3: {reason}"]
    assert await count_pets(session) == 0


async def test_the_longest_notes_are_imported_however_their_characters_are_composed(session: AsyncSession) -> None:
    await import_pets(session, rows("name,notes", "Rex," + "e\u0301" * 1_000_000))

    assert (await pets_of(session))[0].notes == "\u00e9" * 1_000_000


def test_a_header_of_many_columns_is_read_in_linear_time() -> None:
    compared = 0

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    header = [Name(f"column {number}") for number in range(2000)]
    columns: dict[str, str | None] = dict.fromkeys(header)
    columns[header[0]] = "name"

    assert file_format._fields(header, columns)[:2] == ["name", None]
    assert compared < 20 * len(header)


@pytest.mark.parametrize(
    ("slow", "second_begins"), [(file_format._MAX_CELL_LENGTH, 0.02), (131072, 0.07)], ids=["begins", "ends"]
)
def test_a_thread_that_reads_while_another_one_begins_or_ends_has_its_limit(
    monkeypatch: pytest.MonkeyPatch, slow: int, second_begins: float
) -> None:
    set_limit = csv.field_size_limit

    def set_slowly(limit: int) -> int:
        time.sleep(0.05 if limit == slow else 0)
        return set_limit(limit)

    def read(begins: float) -> int:
        time.sleep(begins)
        with file_format._raised_field_limit:
            time.sleep(0.05)
            return set_limit()

    monkeypatch.setattr(csv, "field_size_limit", set_slowly)
    with ThreadPoolExecutor() as threads:
        limits = list(threads.map(read, [0, second_begins]))

    assert limits == [file_format._MAX_CELL_LENGTH] * 2
    assert set_limit() == 131072


@pytest.mark.parametrize("keep_going", [False, True])
async def test_a_file_that_can_not_be_decoded_to_its_end_is_not_imported(
    session: AsyncSession, tmp_path: Path, keep_going: bool
) -> None:
    (tmp_path / "pets.csv").write_bytes(b"name\n" + b"Rex\n" * 10_000 + b"Zo\xeb\n")

    with pytest.raises(ImportRejectedError, match="this or a later line cannot be decoded"):
        await import_pets(session, tmp_path / "pets.csv", keep_going=keep_going)

    assert await count_pets(session) == 0
