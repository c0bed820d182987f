"""Imports: what rows become, what they match, and what is rejected."""

import asyncio
import csv
import io
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any, cast

import pexpect
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession as HostSession

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    DatabaseError,
    ImportRejectedError,
    ImportReport,
    Pet,
    PetCreate,
    PetUpdate,
    User,
    UserCreate,
    archive_pet,
    count_pets,
    count_users,
    create_pet,
    create_user,
    export_pets,
    find_pet_by_microchip,
    find_user_by_email,
    get_pet,
    get_user,
    import_pets,
    list_pets,
    list_users,
    update_pet,
)
from sqlmodel_alembic_async.engines import prepare
from sqlmodel_alembic_async.services.csv_files import file_format

CHIPS = ("276098102345678", "276098102345679", "276098102345680")


def rows(*lines: str) -> io.StringIO:
    return io.StringIO("".join(f"{line}\r\n" for line in lines))


def counts(report: ImportReport) -> tuple[int, int, int, int]:
    return report.created, report.updated, report.unchanged, report.rejected


def reasons(report: ImportReport) -> list[tuple[int, str | None, str | None]]:
    return [(rejection.line, rejection.column, rejection.value) for rejection in report.rejections]


async def rejected(session: AsyncSession, *lines: str, **options: Any) -> ImportReport:
    with pytest.raises(ImportRejectedError) as caught:
        await import_pets(session, rows(*lines), **options)
    report = caught.value.report
    assert isinstance(report, ImportReport)
    return report


async def pets_of(session: AsyncSession) -> list[Pet]:
    return (await list_pets(session, order_by="id", limit=1000, archived=None)).items


async def users_of(session: AsyncSession) -> list[User]:
    return (await list_users(session, order_by="id", limit=1000)).items


# What rows become.


async def test_a_row_becomes_a_pet_and_its_owner(session: AsyncSession) -> None:
    report = await import_pets(
        session,
        rows(
            "name,species,breed,color,sex,neutered,birth_date,birth_date_estimated,weight_g,microchip,status,deceased_on,"
            "acquired_on,notes,external_ref,owner_name,owner_email,owner_phone,owner_address,owner_city,"
            "owner_postal_code,owner_notes,owner_external_ref",
            "Rex,Dog,Beagle,Brown,M,yes,2014-05-01,no,9500,276 098 102 345 678,Deceased,2024-01-02,2015-01-01,"
            "good,p1,Ada,ADA@example.com,030 12345,Main St 1,Berlin,10115,kind,u1",
        ),
    )

    assert counts(report) == (1, 0, 0, 0)
    ada = await find_user_by_email(session, "ada@example.com")
    assert ada is not None
    assert (ada.name, ada.phone, ada.address, ada.city) == ("Ada", "030 12345", "Main St 1", "Berlin")
    assert (ada.postal_code, ada.notes, ada.external_ref, ada.version) == ("10115", "kind", "u1", 1)
    rex = (await pets_of(session))[0]
    assert (rex.name, rex.species, rex.breed, rex.color, rex.sex) == ("Rex", "dog", "Beagle", "Brown", "male")
    assert (rex.neutered, rex.birth_date, rex.birth_date_estimated) == (True, date(2014, 5, 1), False)
    assert (rex.weight_g, rex.microchip, rex.status) == (9500, "276098102345678", "deceased")
    assert (rex.deceased_on, rex.acquired_on, rex.owner_id) == (date(2024, 1, 2), date(2015, 1, 1), ada.id)
    assert (rex.notes, rex.external_ref, rex.version, rex.name_key) == ("good", "p1", 1, "rex")


async def test_either_half_of_a_row_may_be_blank(session: AsyncSession) -> None:
    report = await import_pets(session, rows("name,owner_name", "Rex,", ",Ada", "Tom,Bob"))

    assert counts(report) == (3, 0, 0, 0)
    assert [(pet.name, pet.owner_id is None) for pet in await pets_of(session)] == [("Rex", True), ("Tom", False)]
    assert [user.name for user in await users_of(session)] == ["Ada", "Bob"]


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

    with (tmp_path / "pets.csv").open("rb") as file, pytest.raises(TypeError, match="opened as text"):
        await import_pets(nobody, file)  # type: ignore[arg-type]


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
        return [cells[1] for batch in file_format.CSVFile(file, {}).batches() for _, cells in batch]

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


# Cells.


@pytest.mark.parametrize(
    ("cell", "sex"),
    [("m", "male"), ("F", "female"), ("u", "unknown"), ("MALE", "male"), ("Female", "female"), ("", "unknown")],
)
async def test_sex_is_understood_in_letters_and_words_of_any_case(session: AsyncSession, cell: str, sex: str) -> None:
    await import_pets(session, rows("name,sex", f"Rex,{cell}"))

    assert (await pets_of(session))[0].sex == sex


@pytest.mark.parametrize(
    ("cell", "date_format", "born", "estimated"),
    [
        ("2014-05-01", None, date(2014, 5, 1), False),
        ("2014", None, date(2014, 1, 1), True),
        ("01/05/2014", "%d/%m/%Y", date(2014, 5, 1), False),
        ("April 19 2003", "%B %d %Y", date(2003, 4, 19), False),
        ("2014-05-01", "%d/%m/%Y", date(2014, 5, 1), False),
        ("2014", "%d/%m/%Y", date(2014, 1, 1), True),
        ("2014-05-06", "%Y-%d-%m", date(2014, 6, 5), False),
    ],
)
async def test_a_date_is_iso_or_of_the_format_and_a_year_alone_an_estimate(
    session: AsyncSession, cell: str, date_format: str | None, born: date, estimated: bool
) -> None:
    await import_pets(session, rows("birth_date,name", f"{cell},Rex"), date_format=date_format)

    rex = (await pets_of(session))[0]
    assert (rex.birth_date, rex.birth_date_estimated) == (born, estimated)


@pytest.mark.parametrize(
    ("column", "cell", "options"),
    [
        ("birth_date", "01/05/2014", {}),
        ("birth_date", "2014-13-01", {}),
        ("birth_date", "0000", {}),
        ("birth_date", "31/02/2014", {"date_format": "%d/%m/%Y"}),
        ("birth_date", "2014-05-31", {"date_format": "%Y-%d-%m"}),
        ("birth_date", "9999-01-01", {}),
        ("acquired_on", "2014", {}),
        ("sex", "neuter", {}),
        ("neutered", "perhaps", {}),
        ("weight_g", "4.2", {}),
        ("weight_g", "-1", {}),
        ("weight_g", "0", {}),
        ("weight_g", "99999999999", {}),
        ("microchip", "9.85112E+14", {}),
        ("status", "asleep", {}),
        ("owner_email", "nobody", {}),
        ("owner_phone", "1", {}),
        ("species", "x" * 51, {}),
    ],
)
async def test_a_bad_cell_is_rejected_with_line_column_value_and_reason(
    session: AsyncSession, column: str, cell: str, options: dict[str, str]
) -> None:
    report = await rejected(session, f"name,owner_name,{column}", "Tom,Ada,", f"Rex,Ada,{cell}", **options)

    assert reasons(report) == [(3, column, cell)]
    assert report.rejections[0].reason
    assert counts(report) == (1, 0, 0, 1)
    assert (await count_pets(session), await count_users(session)) == (0, 0)


async def test_a_year_that_is_said_to_be_exact_is_rejected(session: AsyncSession) -> None:
    report = await rejected(session, "name,birth_date,birth_date_estimated", "Rex,2014,no")

    assert reasons(report) == [(2, "birth_date", "2014")]


async def test_another_day_of_birth_is_no_estimate_unless_the_row_says_so(session: AsyncSession) -> None:
    for name in ("p1", "p2", "p3"):
        born = date(2014, 1, 1)
        await create_pet(session, PetCreate(name=name, external_ref=name, birth_date=born, birth_date_estimated=True))

    await import_pets(
        session,
        rows("external_ref,birth_date,birth_date_estimated", "p1,2014-05-01,", "p2,2014-01-01,", "p3,2014-05-01,yes"),
    )

    assert [pet.birth_date_estimated for pet in await pets_of(session)] == [False, True, True]


async def test_all_that_is_wrong_with_a_row_is_said_once(session: AsyncSession) -> None:
    lines = ("name,sex,birth_date,deceased_on,owner_name", "-,x,2014,,Ada", ",,,,", "Max,,,2020-01-01,", ",,,,Bob")

    report = await rejected(session, *lines)

    assert reasons(report) == [(2, "name", "-"), (2, "sex", "x"), (4, None, None)]
    assert counts(report) == (1, 0, 0, 2)


@pytest.mark.parametrize("name", ["Unknown", "-", "99", "TBD", "N/A", "???", "–", "no NAME", "...", "½"])  # noqa: RUF001
async def test_placeholder_names_are_rejected_unless_they_are_kept(session: AsyncSession, name: str) -> None:
    report = await rejected(session, "name", name)
    kept = await import_pets(session, rows("name", name), placeholder_names="keep")

    assert reasons(report) == [(2, "name", name)]
    assert counts(kept) == (1, 0, 0, 0)


@pytest.mark.parametrize("name", ["R2-D2", "Ñ", "🐶", "犬", "Nona", "Squeak & Pip"])
async def test_a_name_that_says_something_is_no_placeholder(session: AsyncSession, name: str) -> None:
    assert counts(await import_pets(session, rows("name", name))) == (1, 0, 0, 0)


@pytest.mark.parametrize("placeholder_names", ["reject", "keep"])
async def test_a_blank_name_is_rejected_in_any_case(session: AsyncSession, placeholder_names: Any) -> None:
    report = await rejected(session, "name,species", " ,dog", placeholder_names=placeholder_names)

    assert [(rejection.column, rejection.reason) for rejection in report.rejections] == [("name", "must not be blank")]


@pytest.mark.parametrize("breed", ["Unknown", "Not Provided", "-", "n/a", ""])
async def test_a_placeholder_breed_is_none(session: AsyncSession, breed: str) -> None:
    await import_pets(session, rows("name,breed", f"Rex,{breed}"))

    assert (await pets_of(session))[0].breed is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placeholder_names": "drop"}, "placeholder_names"),
        ({"date_format": "%d/%m"}, "date_format"),
        ({"date_format": "%B %Y"}, "date_format"),
        ({"date_format": "%Q"}, "date_format"),
        ({"date_format": "dd.mm.yyyy"}, "date_format"),
    ],
)
async def test_an_option_that_says_nothing_clear_is_refused(options: dict[str, Any], message: str) -> None:
    nobody: Any = None

    with pytest.raises(ValueError, match=message):
        await import_pets(nobody, rows("name", "Rex"), **options)


@pytest.mark.parametrize("line", ["Rex", "Rex,dog,brown"])
@pytest.mark.parametrize("header", ["name,species", "name,external_ref"])
async def test_a_row_with_too_few_or_too_many_cells_is_rejected(session: AsyncSession, header: str, line: str) -> None:
    report = await rejected(session, header, line)

    assert [str(rejection) for rejection in report.rejections] == [f"line 2: has {line.count(',') + 1} cells, not 2"]


# What rows match.


async def test_the_same_keyed_file_again_changes_nothing(session: AsyncSession) -> None:
    lines = (
        "name,species,microchip,external_ref,weight_g,birth_date,owner_name,owner_email,owner_external_ref",
        f"Rex,dog,{CHIPS[0]},,9500,2014,Ada,ada@example.com,",
        "Tom,cat,,p2,,,Ada,ada@example.com,",
        ",,,,,,Bob,,u2",
        f"Max,dog,{CHIPS[1]},p3,,,Eve,,",
    )
    await import_pets(session, rows(*lines))
    before = (
        [pet.model_dump() for pet in await pets_of(session)],
        [user.model_dump() for user in await users_of(session)],
    )

    report = await import_pets(session, rows(*lines))

    assert counts(report) == (0, 0, 4, 0)
    after = (
        [pet.model_dump() for pet in await pets_of(session)],
        [user.model_dump() for user in await users_of(session)],
    )
    assert after == before


async def test_a_pet_is_matched_by_external_ref_and_then_by_microchip(session: AsyncSession) -> None:
    rex = await create_pet(session, PetCreate(name="Rex", external_ref="p1"))
    tom = await create_pet(session, PetCreate(name="Tom", microchip=CHIPS[0]))

    report = await import_pets(
        session,
        rows(
            "name,external_ref,microchip", f"Rex the Dog,p1,{CHIPS[1]}", "Tom the Cat,p2,276-098-102-345-678", "Rex,,"
        ),
    )

    assert counts(report) == (1, 2, 0, 0)
    assert [(pet.name, pet.external_ref, pet.microchip, pet.version) for pet in await pets_of(session)] == [
        ("Rex the Dog", "p1", CHIPS[1], 2),
        ("Tom the Cat", "p2", CHIPS[0], 2),
        ("Rex", None, None, 1),
    ]
    # What the session held already is read anew.
    assert (rex.name, rex.name_key, tom.external_ref) == ("Rex the Dog", "rex the dog", "p2")


async def test_an_owner_is_matched_by_external_ref_and_then_by_email_never_by_name(session: AsyncSession) -> None:
    await create_user(session, UserCreate(name="Ada", external_ref="u1"))
    await create_user(session, UserCreate(name="Bob", email="bob@example.com"))

    report = await import_pets(
        session,
        rows(
            "owner_name,owner_external_ref,owner_email,owner_city",
            "Ada,u1,ADA@example.com,Berlin",
            "Bob,u2,BOB@example.com,",
            "Ada,,,",
        ),
    )

    assert counts(report) == (1, 2, 0, 0)
    assert [(user.name, user.external_ref, user.email, user.city) for user in await users_of(session)] == [
        ("Ada", "u1", "ada@example.com", "Berlin"),
        ("Bob", "u2", "bob@example.com", None),
        ("Ada", None, None, None),
    ]


async def test_a_blank_cell_overwrites_nothing(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com", phone="030 12345"))
    await create_pet(
        session, PetCreate(name="Rex", external_ref="p1", breed="Beagle", sex="male", notes="x", owner_id=ada.id)
    )

    report = await import_pets(
        session,
        rows("name,external_ref,breed,sex,notes,owner_email,owner_phone", ",p1,Unknown,,,,", ",,,,,ada@example.com,"),
    )

    assert counts(report) == (0, 0, 2, 0)
    rex = (await pets_of(session))[0]
    assert (rex.name, rex.breed, rex.sex, rex.notes, rex.owner_id) == ("Rex", "Beagle", "male", "x", ada.id)
    assert (await get_user(session, rex.owner_id)).phone == "030 12345"


async def test_an_archived_pet_is_matched_and_stays_archived(session: AsyncSession) -> None:
    rex = await create_pet(session, PetCreate(name="Rex", microchip=CHIPS[0]))
    await archive_pet(session, rex.id)

    report = await import_pets(session, rows("name,microchip,color", f"Rex,{CHIPS[0]},brown"))

    assert counts(report) == (0, 1, 0, 0)
    assert (rex.color, rex.archived_at is not None) == ("brown", True)


async def test_two_rows_that_claim_one_key_are_both_rejected(session: AsyncSession) -> None:
    lines = (
        "name,external_ref,microchip",
        f"Rex,p1,{CHIPS[0]}",
        "Tom,p1,",
        "Max,p3,",
        "Eve,,276 098 102 345 678",
        "Zoe,bad,1",
        f"Kim,,{CHIPS[1]}",
    )

    report = await import_pets(session, rows(*lines), keep_going=True)

    assert [(rejection.line, rejection.column, rejection.reason[:25]) for rejection in report.rejections[:4]] == [
        (2, "external_ref", "is claimed by line 3, too"),
        (2, "microchip", "is claimed by line 5, too"),
        (3, "external_ref", "is claimed by line 2, too"),
        (5, "microchip", "is claimed by line 2, too"),
    ]
    assert counts(report) == (2, 0, 0, 4)
    assert [pet.name for pet in await pets_of(session)] == ["Max", "Kim"]


async def test_two_rows_about_one_pet_by_different_keys_are_not_both_taken(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", microchip=CHIPS[0]))

    report = await import_pets(session, rows("name,external_ref,microchip", "A,p1,", f"B,,{CHIPS[0]}"), keep_going=True)

    assert [str(rejection) for rejection in report.rejections] == [
        f"line 3, microchip: '{CHIPS[0]}' is of the same pet as line 2"
    ]
    assert [pet.name for pet in await pets_of(session)] == ["A"]


@pytest.fixture(params=[1000, 1])
def batch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows mean the same whether they are in one batch or not."""
    monkeypatch.setattr(file_format, "BATCH_SIZE", request.param)


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("first", [f"Tom,p2,{CHIPS[0]}", f"Tom,p1,{CHIPS[1]}"])
async def test_a_key_that_a_row_gives_up_is_not_there_for_another_row(session: AsyncSession, first: str) -> None:
    await create_pet(session, PetCreate(name="Tom", external_ref="p1", microchip=CHIPS[0]))
    second = "Max,p1," if "p2" in first else f"Max,,{CHIPS[0]}"

    report = await import_pets(session, rows("name,external_ref,microchip", first, second), keep_going=True)

    assert [rejection.line for rejection in report.rejections] == [3]
    assert [pet.name for pet in await pets_of(session)] == ["Tom"]


@pytest.mark.usefixtures("batch")
async def test_an_email_that_an_owner_gives_up_makes_no_second_owner(session: AsyncSession) -> None:
    await create_user(session, UserCreate(name="Ada", email="a@example.com", external_ref="u1"))
    lines = ("owner_name,owner_external_ref,owner_email", "Ada,u1,b@example.com", "Ada,,a@example.com")

    report = await import_pets(session, rows(*lines), keep_going=True)

    assert reasons(report) == [(3, "owner_email", "a@example.com")]
    assert [user.email for user in await users_of(session)] == ["b@example.com"]


async def test_keys_of_two_rows_that_are_stored_are_never_joined(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex", external_ref="p1"))
    await create_pet(session, PetCreate(name="Tom", microchip=CHIPS[0]))
    await create_user(session, UserCreate(name="Ada", external_ref="u1"))
    await create_user(session, UserCreate(name="Bob", email="bob@example.com"))

    report = await rejected(
        session,
        "name,external_ref,microchip,owner_external_ref,owner_email",
        f"Rex,p1,{CHIPS[0]},,",
        "Max,,,u1,bob@example.com",
    )

    assert reasons(report) == [(2, "microchip", CHIPS[0]), (3, "owner_email", "bob@example.com")]


async def test_an_owner_repeated_in_a_file_is_one_owner(session: AsyncSession) -> None:
    await import_pets(
        session,
        rows(
            "name,owner_name,owner_email,owner_phone,owner_external_ref",
            "Rex,Ada,ada@example.com,,",
            "Tom,,ADA@example.com,030 12345,",
            "Max,Bob,,030 55555,",
            "Eve,Bob,,030 55555,",
            "Kim,Bob,,030 66666,",
            "Lea,Cid,cid@example.com,,u1",
            "Leo,Cid,,,u1",
        ),
    )

    pets = await pets_of(session)
    assert len({pet.owner_id for pet in pets}) == 4
    assert pets[0].owner_id == pets[1].owner_id
    assert pets[2].owner_id == pets[3].owner_id
    assert pets[5].owner_id == pets[6].owner_id
    ada = await get_user(session, pets[0].owner_id)
    assert (ada.name, ada.phone, ada.version) == ("Ada", "030 12345", 1)


async def test_an_owner_is_one_also_where_the_rows_are_far_apart(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_format, "BATCH_SIZE", 2)
    lines = [
        "name,owner_name,owner_email",
        "A,Ada,ada@example.com",
        "B,Bob,",
        "C,,",
        "D,,",
        "E,Ada,ada@example.com",
        "F,Bob,",
    ]

    report = await import_pets(session, rows(*lines))

    assert counts(report) == (6, 0, 0, 0)
    assert await count_users(session) == 2
    pets = await pets_of(session)
    assert [pet.owner_id for pet in pets] == [*[pet.owner_id for pet in pets[:2]], None, None] + [
        pet.owner_id for pet in pets[:2]
    ]


async def test_rows_that_contradict_each_other_about_one_owner_are_rejected(session: AsyncSession) -> None:
    lines = ("name,owner_name,owner_email", "Rex,Ada,a@example.com", "Tom,Eve,A@example.com", "Max,Bob,b@example.com")

    report = await import_pets(session, rows(*lines), keep_going=True)

    assert reasons(report) == [(2, "owner_name", "Ada"), (3, "owner_name", "Eve")]
    assert [pet.name for pet in await pets_of(session)] == ["Max"]
    assert await count_users(session) == 1


@pytest.mark.usefixtures("batch")
async def test_rows_that_contradict_each_other_by_way_of_a_third_one_are_rejected(session: AsyncSession) -> None:
    lines = (
        "owner_name,owner_external_ref,owner_email,owner_city",
        "Ada,u1,a@example.com,",
        "Ada,u1,,Bonn",
        "Ada,,a@example.com,Berlin",
    )

    report = await rejected(session, *lines)

    assert [(rejection.line, rejection.column) for rejection in report.rejections] == [
        (line, "owner_city") for line in (2, 3, 4)
    ]
    assert report.rejections[0].reason == "differs between lines 3 and 4, which have one owner"


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("city", ["Bonn", "Rome"])
async def test_one_stored_owner_of_whom_two_keys_say_different_things_is_rejected(
    session: AsyncSession, city: str
) -> None:
    await create_user(session, UserCreate(name="Ada", email="a@example.com", external_ref="u1", city=city))
    lines = ("owner_external_ref,owner_email,owner_city,owner_phone", "u1,,Bonn,", ",a@example.com,Berlin,030 12345")

    report = await import_pets(session, rows(*lines), keep_going=True)

    assert reasons(report) == [(3, "owner_city", "Berlin")]
    assert [(user.city, user.phone) for user in await users_of(session)] == [("Bonn", None)]


async def test_one_stored_owner_who_is_changed_in_two_ways_is_rejected(session: AsyncSession) -> None:
    await create_user(session, UserCreate(name="Ada", email="a@example.com", external_ref="u1"))
    lines = ("owner_external_ref,owner_email,owner_city", "u1,b@example.com,", ",a@example.com,Bonn", "u1,,")

    report = await rejected(session, *lines)

    assert reasons(report) == [(3, "owner_email", "a@example.com")]


async def test_what_the_rows_say_together_finds_the_stored_owner(session: AsyncSession) -> None:
    await create_user(session, UserCreate(name="Ada", external_ref="u1"))

    report = await import_pets(
        session,
        rows("owner_name,owner_external_ref,owner_email", "Bob,,b@example.com", "Bob,u1,b@example.com"),
        keep_going=True,
    )

    assert counts(report) == (0, 1, 1, 0)
    assert [(user.name, user.email) for user in await users_of(session)] == [("Bob", "b@example.com")]


# Owners of stored pets.


async def test_an_owner_without_a_key_is_known_by_the_pet(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", phone="030 12345", city="Berlin"))
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", owner_id=ada.id))
    await create_pet(session, PetCreate(name="Tom", external_ref="p2"))
    lines = ("name,external_ref,owner_name,owner_phone", "Rex,p1,Ada,030 12345", "Tom,p2,Bob,")

    report = await import_pets(session, rows(*lines))
    again = await import_pets(session, rows(*lines))

    assert (counts(report), counts(again)) == ((0, 1, 1, 0), (0, 0, 2, 0))
    assert [user.name for user in await users_of(session)] == ["Ada", "Bob"]


@pytest.mark.parametrize(("size", "lines"), [(1000, ("New,p2", "Rex,p1")), (1, ("Rex,p1", "New,p2"))])
async def test_an_owner_known_by_a_pet_is_known_in_the_other_rows_too(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch, size: int, lines: tuple[str, ...]
) -> None:
    monkeypatch.setattr(file_format, "BATCH_SIZE", size)
    ada = await create_user(session, UserCreate(name="Ada", phone="030 12345"))
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", owner_id=ada.id))

    report = await import_pets(
        session, rows("name,external_ref,owner_name,owner_phone", *(f"{line},Ada,030 12345" for line in lines))
    )

    assert counts(report) == (1, 0, 1, 0)
    assert {pet.owner_id for pet in await pets_of(session)} == {ada.id}
    assert await count_users(session) == 1


async def test_an_owner_without_a_key_who_is_not_the_pets_is_rejected(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", phone="030 12345"))
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", owner_id=ada.id))

    report = await rejected(session, "external_ref,owner_name,owner_phone", "p1,Ada,030 99999")

    assert [rejection.line for rejection in report.rejections] == [2]
    assert "no key to find another one by" in report.rejections[0].reason


async def test_a_row_gives_a_pet_to_another_owner(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    bob = await create_user(session, UserCreate(name="Bob", email="bob@example.com"))
    day = date(2020, 1, 1)
    for name in ("p1", "p2"):
        await create_pet(session, PetCreate(name=name, external_ref=name, owner_id=ada.id, acquired_on=day))

    report = await import_pets(
        session,
        rows("external_ref,acquired_on,owner_email", "p1,,bob@example.com", "p2,2024-05-01,bob@example.com"),
    )

    assert counts(report) == (0, 2, 0, 0)
    pets = await pets_of(session)
    assert [(pet.owner_id, pet.acquired_on) for pet in pets] == [(bob.id, None), (bob.id, date(2024, 5, 1))]


async def test_a_deceased_pet_is_given_to_nobody_else(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", status="deceased", owner_id=ada.id))
    lines = ("external_ref,owner_name,owner_email", "p1,Bob,bob@example.com")

    report = await rejected(session, *lines)
    same = await import_pets(session, rows("external_ref,owner_email", "p1,ada@example.com"))

    assert [rejection.reason for rejection in report.rejections] == ["gives a deceased pet to another owner"]
    assert counts(same) == (0, 0, 1, 0)


async def test_what_a_row_changes_must_agree_with_what_is_stored(session: AsyncSession) -> None:
    born = date(2020, 1, 1)
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", birth_date=born, status="deceased"))
    await create_pet(session, PetCreate(name="Tom", external_ref="p2"))

    report = await import_pets(
        session,
        rows("external_ref,deceased_on,acquired_on", "p1,2019-01-01,", "p2,2019-01-01,", "p2x,,2019-01-01", "p1x,,"),
        keep_going=True,
    )
    fine = await import_pets(session, rows("external_ref,deceased_on", "p1,2021-01-01"))

    assert [(rejection.line, rejection.reason) for rejection in report.rejections] == [
        (2, "deceased_on must not be before birth_date"),
        (3, "deceased_on needs the status deceased"),
        (4, "must not be blank"),
        (5, "must not be blank"),
    ]
    assert counts(fine) == (0, 1, 0, 0)
    assert await find_pet_by_microchip(session, CHIPS[0]) is None


async def test_an_acquisition_needs_an_owner(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex", external_ref="p1"))

    report = await rejected(session, "name,external_ref,acquired_on", "Rex,p1,2020-01-01", "Tom,,2020-01-01")

    assert [rejection.reason for rejection in report.rejections] == ["acquired_on needs an owner_id"] * 2


async def test_a_year_alone_does_not_replace_a_day_of_that_year(session: AsyncSession) -> None:
    day = date(2014, 5, 1)
    await create_pet(session, PetCreate(name="Rex", external_ref="p1", birth_date=day))
    await create_pet(session, PetCreate(name="Tom", external_ref="p2", birth_date=day))
    await create_pet(session, PetCreate(name="Max", external_ref="p3"))

    report = await import_pets(session, rows("external_ref,birth_date", "p1,2014", "p2,2015", "p3,2014"))

    assert counts(report) == (0, 2, 1, 0)
    assert [(pet.birth_date, pet.birth_date_estimated) for pet in await pets_of(session)] == [
        (day, False),
        (date(2015, 1, 1), True),
        (date(2014, 1, 1), True),
    ]


# Whole files.


async def test_any_rejection_means_that_nothing_is_written(db: Database) -> None:
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Before", external_ref="p1"))
        with pytest.raises(ImportRejectedError) as caught:
            await import_pets(session, rows("name,external_ref,owner_name", "Rex,,Ada", "After,p1,", "-,,"))
        await create_user(session, UserCreate(name="Bob"))

    async with db.reading() as session:
        assert [(pet.name, pet.version) for pet in await pets_of(session)] == [("Before", 1)]
        assert [user.name for user in await users_of(session)] == ["Bob"]
    assert counts(caught.value.report) == (1, 1, 0, 1)
    assert str(caught.value) == (
        "nothing was imported: 1 of 3 rows are rejected, the first one in line 4, name: "
        'is a placeholder: placeholder_names="keep" takes it as a name'
    )


@pytest.mark.usefixtures("batch")
async def test_rejections_are_in_the_order_of_the_lines(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex", external_ref="p1"))
    lines = ("name,external_ref,acquired_on", "Rex,p1,2020-01-01", "-,,", "Rex", ",p2,", "?,,")

    report = await rejected(session, *lines)

    assert [rejection.line for rejection in report.rejections] == [2, 3, 4, 5, 6]


async def test_a_dry_run_reports_the_same_and_writes_nothing(db: Database) -> None:
    lines = ("name,external_ref,owner_name", "Rex,,Ada", "After,p1,", "-,,", "Same,p2,")
    async with db.transaction() as session:
        before = await create_pet(session, PetCreate(name="Before", external_ref="p1"))
        await create_pet(session, PetCreate(name="Same", external_ref="p2"))

        dry = await import_pets(session, rows(*lines), keep_going=True, dry_run=True)

        assert before.name == "Before"
        assert [(pet.name, pet.version) for pet in await pets_of(session)] == [("Before", 1), ("Same", 1)]
        assert await count_users(session) == 0
        wet = await import_pets(session, rows(*lines), keep_going=True)

    assert (dry.dry_run, wet.dry_run) == (True, False)
    assert counts(dry) == counts(wet) == (1, 1, 1, 1)
    assert dry.rejections == wet.rejections
    assert dry.rows == 4


async def test_a_report_reads_well(session: AsyncSession) -> None:
    report = await import_pets(
        session, rows("name,species", "Rex,dog", *["-,dog"] * 22, f"Max,{'x' * 51}"), keep_going=True, dry_run=True
    )

    lines = str(report).splitlines()
    assert lines[0] == "1 created, 0 updated, 0 unchanged, 23 rejected (dry run: nothing was written)"
    assert lines[1] == "  line 3, name: '-' is a placeholder: placeholder_names=\"keep\" takes it as a name"
    assert lines[21:] == [
        "  and 3 more",
        '  22 times: is a placeholder: placeholder_names="keep" takes it as a name',
        "  1 times: must have at most 50 characters",
    ]
    assert report.reasons == Counter(
        {'is a placeholder: placeholder_names="keep" takes it as a name': 22, "must have at most 50 characters": 1}
    )


async def test_a_report_of_many_reasons_stays_short(session: AsyncSession) -> None:
    lines = [f"Rex,p{number % 100}" for number in range(200)]

    report = await rejected(session, "name,external_ref", *lines)

    assert len(str(report).splitlines()) < 50


async def test_the_repr_of_a_rejection_holds_no_value_of_a_row(session: AsyncSession) -> None:
    with pytest.raises(ImportRejectedError) as caught:
        await import_pets(session, rows("name,sex", "Rex,secret"))

    assert "secret" not in repr(caught.value)
    assert "rejected=1" in repr(caught.value)


async def test_a_report_of_a_clean_file_is_one_line(session: AsyncSession) -> None:
    assert str(await import_pets(session, rows("name", "Rex"))) == "1 created, 0 updated, 0 unchanged, 0 rejected"


async def test_an_import_needs_a_transaction_that_may_write(db: Database) -> None:
    for options in ({}, {"snapshot": True}):
        with pytest.raises(DatabaseError):
            async with db.reading(**options) as session:
                await import_pets(session, rows("name", "Rex"))


async def test_a_file_that_is_not_there_is_the_callers_error(session: AsyncSession, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await import_pets(session, tmp_path / "missing.csv")


async def cancel_half_way(transaction: AbstractAsyncContextManager[Any]) -> None:
    """Cancel a task that imports in this transaction, and see it end."""
    begun = asyncio.Event()

    async def work() -> None:
        async with transaction as session:
            await import_pets(
                session, rows("name", *["Rex"] * 100_000), progress=lambda done: begun.set() if done > 20 else None
            )

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_import_can_be_cancelled_and_leaves_nothing(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_format, "BATCH_SIZE", 10)

    await cancel_half_way(db.transaction())

    async with db.reading() as session:
        assert await count_pets(session) == 0


async def test_a_host_applications_session_is_told_that_its_task_was_cancelled(
    migrated_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_format, "BATCH_SIZE", 10)
    engine = prepare(create_async_engine(migrated_url))

    @asynccontextmanager
    async def transaction() -> AsyncIterator[HostSession]:
        async with HostSession(engine) as session, session.begin():
            yield session

    await cancel_half_way(transaction())

    async with HostSession(engine) as session:
        assert await count_pets(session) == 0
    await engine.dispose()


@pytest.mark.parametrize("ready", [True, False])
async def test_an_import_is_the_callers_to_roll_back_on_any_engine_of_a_host(migrated_url: URL, ready: bool) -> None:
    engine = create_async_engine(migrated_url)
    if ready:
        prepare(engine)

    async with HostSession(engine) as session:
        for _ in range(2):
            assert counts(await import_pets(session, rows("name,owner_name", "Rex,Ada"))) == (1, 0, 0, 0)
        await session.rollback()

        assert (await count_pets(session), await count_users(session)) == (0, 0)
    await engine.dispose()


async def test_a_pet_whose_owner_is_missing_gets_the_one_of_its_row(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'own.db'}")  # Its foreign keys are off.
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all, tables=[User.__table__, Pet.__table__])

    async with HostSession(engine) as session:
        await create_pet(session, PetCreate(name="Rex", external_ref="p1", owner_id=77))
        report = await import_pets(session, rows("external_ref,owner_name", "p1,Ada"))

        assert counts(report) == (0, 1, 0, 0)
        assert [user.name for user in await users_of(session)] == ["Ada"]
    await engine.dispose()


async def test_the_longest_notes_of_many_owners_are_imported(session: AsyncSession) -> None:
    notes = "x" * 1_000_000

    await import_pets(session, rows("name,owner_name,owner_notes", *[f"Rex,{n},{notes}" for n in "ABCDEFGHIJKLMNOPQR"]))

    assert await count_users(session) == 18
    assert [(await get_user(session, pet.owner_id)).name for pet in (await pets_of(session))[:2]] == ["A", "B"]


async def test_an_import_takes_few_statements_and_queries(db: Database, statements: Any, session: AsyncSession) -> None:
    unkeyed = rows("name,species", *["Rex,dog"] * 1500)
    keyed = [f"Rex,p{number},Ada,ada{number % 100}@example.com" for number in range(1000)]

    plain = await statements.taken_by(import_pets(session, unkeyed))
    first = await statements.taken_by(import_pets(session, rows("name,external_ref,owner_name,owner_email", *keyed)))
    again = await statements.taken_by(import_pets(session, rows("name,external_ref,owner_name,owner_email", *keyed)))

    assert plain == 2
    # SQLite does not promise to return ids in the order of the rows: there, each new owner is inserted alone.
    assert first == (100 if db.engine.dialect.name == "sqlite" else 1) + 3
    assert again == 2


async def test_owners_get_their_ids_also_where_an_insert_returns_nothing(
    db: Database, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As MySQL: MariaDB and the others return what they insert.
    monkeypatch.setattr(db.engine.dialect, "insert_executemany_returning_sort_by_parameter_order", False)

    await import_pets(session, rows("name,owner_name", "Rex,Ada", "Tom,Bob"))

    pets = await pets_of(session)
    assert [(await get_user(session, pet.owner_id)).name for pet in pets] == ["Ada", "Bob"]


async def test_what_the_session_has_not_written_yet_is_matched_and_kept(session: AsyncSession) -> None:
    session.add(Pet(name="Rex", external_ref="p1"))

    report = await import_pets(session, rows("name,external_ref,color", "Rex,p1,brown"))

    assert counts(report) == (0, 1, 0, 0)
    assert (await pets_of(session))[0].color == "brown"


async def test_a_stale_copy_does_not_overwrite_what_was_imported(session: AsyncSession) -> None:
    rex = await create_pet(session, PetCreate(name="Rex", external_ref="p1"))

    await import_pets(session, rows("external_ref,color", "p1,brown"))
    await update_pet(session, rex.id, PetUpdate(name="Max"), expected_version=rex.version)

    assert (rex.name, rex.color, rex.version) == ("Max", "brown", 3)
    assert await get_pet(session, rex.id) is rex


# Progress.


async def test_progress_is_told_in_rows_done(session: AsyncSession) -> None:
    told: list[int] = []

    await import_pets(session, rows("name", *["Rex"] * 2500), progress=told.append)

    assert told == [1000, 2000, 2500]


_PROGRAM = """
import asyncio, io
from sqlmodel_alembic_async import *
async def main():
    async with Database("sqlite:///:memory:") as db:
        await db.create_tables()
        async with db.transaction() as session:
            await import_pets(session, io.StringIO("name\\n" + "Rex\\n" * 3000), progress=True)
asyncio.run(main())
"""


def test_a_progress_bar_is_shown_on_a_terminal() -> None:
    program = pexpect.spawn(sys.executable, ["-W", "error", "-c", _PROGRAM], encoding="utf-8", timeout=60)

    program.expect("100%.*3000/3000")
    program.expect(pexpect.EOF)
    program.close()
    assert program.exitstatus == 0


def test_a_missing_progress_bar_says_what_to_install() -> None:
    program = "import sys; sys.modules['tqdm'] = None\n" + _PROGRAM

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert "pip install 'sqlmodel-alembic-async[progress]'" in done.stderr


# Round trips.

_MARKS = st.sampled_from(["", "'", "''", "=", "'=", "-", "＋", "\ufeff", "\u200b"])  # noqa: RUF001
_TEXTS = (
    st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from("=+-@'\"\t\r\n,;＝\xa0"),  # noqa: RUF001
        min_size=1,
        max_size=12,
    )
    | st.builds(
        "{}{}".format, _MARKS, st.sampled_from(["Unknown", "N/A", "99", "-", "x", "M", "yes", "1999", "'", "?"])
    )
    | st.sampled_from(["=1+1", "one\r\ntwo", "one\rtwo\n\nthree", "e\u0301", "ǅ", "İ", "ß", "'", "''", "true"])
)
_DAYS = st.dates(date(1, 1, 1), date(2026, 1, 1))


def _valid(shape: type[Any], **values: Any) -> Any:
    """Return a shape with those of the values that it takes."""
    while True:
        try:
            return shape(**values)
        except ValidationError as error:
            places = [detail["loc"] for detail in error.errors()]
            refused = {place[0] for place in places if place} or {"deceased_on", "birth_date_estimated", "acquired_on"}
            values = {"name": "Rex"} | {name: value for name, value in values.items() if name not in refused}


_OWNERS = st.fixed_dictionaries(
    {"name": _TEXTS},
    optional={
        **dict.fromkeys(("address", "city", "postal_code", "notes"), _TEXTS),
        "phone": st.builds("{}030 12345".format, _MARKS),
        "email": _MARKS,
        "external_ref": _MARKS,
    },
)
_PETS = st.fixed_dictionaries(
    {"name": _TEXTS, "owner": st.none() | st.integers(0, 3)},
    optional={
        **dict.fromkeys(("species", "breed", "color", "notes"), _TEXTS),
        **dict.fromkeys(("birth_date", "deceased_on", "acquired_on"), _DAYS),
        "sex": st.sampled_from(["male", "female", "unknown"]),
        "neutered": st.booleans(),
        "birth_date_estimated": st.booleans(),
        "weight_g": st.integers(1, 2**31 - 1),
        "microchip": st.sampled_from(["00000000{}", "A-0000000{}", "27609810234567{}"]),
        "status": st.sampled_from(["active", "missing", "deceased"]),
        "external_ref": _MARKS,
    },
)


def _owner(number: int, values: dict[str, Any]) -> UserCreate:
    endings = {"email": f"{number}@example.com", "external_ref": f"{number}"}
    keys = {name: values[name] + ending for name, ending in endings.items() if name in values}
    return cast(UserCreate, _valid(UserCreate, **values | keys))


def _pet(number: int, values: dict[str, Any]) -> PetCreate:
    keys = {"microchip": values["microchip"].format(number)} if "microchip" in values else {}
    keys |= {"external_ref": f"{values['external_ref']}{number}"} if "external_ref" in values else {}
    return cast(PetCreate, _valid(PetCreate, **values | keys))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(owners=[{"name": "N/A"}], pets=[{"name": "99", "owner": 0}])
@example(
    owners=[], pets=[{"name": "Rex", "owner": None, "breed": text} for text in ("Unknown", "-", "=1+1", "'", "''?")]
)
@given(owners=st.lists(_OWNERS, max_size=4), pets=st.lists(_PETS, max_size=6))
def test_an_export_imported_elsewhere_is_exported_as_the_same_bytes(
    migrated_url: URL, tmp_path: Path, owners: list[dict[str, Any]], pets: list[dict[str, Any]]
) -> None:
    async def go() -> None:
        async with Database(migrated_url) as db:
            async with db.transaction() as session:
                ids = [(await create_user(session, _owner(number, values))).id for number, values in enumerate(owners)]
                for number, values in enumerate(pets):
                    owner = values["owner"]
                    owner_id = None if owner is None or owner >= len(ids) else ids[owner]
                    given = {name: value for name, value in values.items() if name != "owner"}
                    await create_pet(session, _pet(number, given | {"owner_id": owner_id}))
            async with db.reading() as session:
                assert await export_pets(session, tmp_path / "first.csv") == len(pets)
            first = await everything(db)
            await empty(db)
            async with db.transaction() as session:
                report = await import_pets(session, tmp_path / "first.csv")
            assert counts(report) == (len(pets), 0, 0, 0)
            async with db.reading() as session:
                await export_pets(session, tmp_path / "second.csv")
            assert await everything(db) == first
            await empty(db)

    asyncio.run(go())
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


@pytest.mark.parametrize("placeholder_names", ["reject", "keep"])
async def test_a_marked_cell_means_its_text(session: AsyncSession, placeholder_names: Any) -> None:
    lines = ("'Unknown,'n/a,'Unknown", "'99,'-,'Unknown", "''Unknown,''99,'=x", "O'Neil,'plain,'")

    report = await import_pets(session, rows("name,breed,color", *lines), placeholder_names=placeholder_names)

    assert counts(report) == (4, 0, 0, 0)
    assert [(pet.name, pet.breed, pet.color) for pet in await pets_of(session)] == [
        ("Unknown", "n/a", "'Unknown"),
        ("99", "-", "'Unknown"),
        ("'Unknown", "'99", "=x"),
        ("O'Neil", "'plain", "'"),
    ]


async def everything(db: Database) -> list[Any]:
    """Return all that a file carries, without the owners who have no pet."""
    kept = {"id", "created_at", "updated_at", "owner_id"}
    async with db.reading() as session:
        owners = {user.id: user.model_dump(exclude=kept) for user in await users_of(session)}
        return [(pet.model_dump(exclude=kept), owners.get(pet.owner_id)) for pet in await pets_of(session)]


async def empty(db: Database) -> None:
    async with db.engine.begin() as connection:
        for model in (Pet, User):
            await connection.execute(model.__table__.delete())
