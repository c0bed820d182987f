"""Cells of a file, one by one: every word that is understood, and what looks like one."""

from datetime import date
from typing import Any

import pytest

from sqlmodel_alembic_async import (
    AsyncSession,
    count_pets,
    count_users,
    import_pets,
)
from sqlmodel_alembic_async.services.csv_files.cell_parsing import CellReader
from sqlmodel_alembic_async.services.csv_files.file_format import COLUMNS

from .imports import counts, pets_of, reasons, rejected, rows


def read(field: str, text: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return what a cell gives a pet and its owner, and the fields that are refused."""
    settings: dict[str, Any] = {"date_format": None, "placeholder_names": "reject", **options}
    pet, owner, bad = CellReader([field], **settings).read([text])
    return pet, owner, [name for name, _ in bad]


@pytest.mark.parametrize("field", COLUMNS)
@pytest.mark.parametrize("text", ["", " ", "\t", "\xa0 \u3000"])
def test_a_blank_cell_says_nothing(field: str, text: str) -> None:
    assert read(field, text) == ({}, {}, [])


@pytest.mark.parametrize("field", ["neutered", "birth_date_estimated"])
@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["true", "yes", "y", "1", "True", "YES", "Y", "TRUE"], True),
        (["false", "no", "n", "0", "False", "NO", "N", "FALSE"], False),
    ],
)
def test_every_word_for_yes_and_no_is_understood(field: str, words: list[str], flag: bool) -> None:
    for word in words:
        assert read(field, f" {word} ") == ({field: flag}, {}, [])


@pytest.mark.parametrize("text", ["t", "f", "ja", "2", "-1", "00", "on", "off", "x", "y e s", "unknown", "ﬁ"])
def test_another_word_is_no_flag(text: str) -> None:
    assert read("neutered", text) == ({}, {}, ["neutered"])


@pytest.mark.parametrize(
    ("words", "sex"),
    [
        (["m", "M", "male", "Male", "MALE"], "male"),
        (["f", "F", "female", "Female", "FEMALE"], "female"),
        (["u", "U", "unknown", "Unknown", "UNKNOWN"], "unknown"),
    ],
)
def test_every_word_for_a_sex_is_understood(words: list[str], sex: str) -> None:
    for word in words:
        assert read("sex", word) == ({"sex": sex}, {}, [])


@pytest.mark.parametrize("text", ["Active", "MISSING", "deceased"])
def test_a_status_is_understood_in_any_case(text: str) -> None:
    assert read("status", text) == ({"status": text.lower()}, {}, [])


@pytest.mark.parametrize(
    ("text", "grams"), [("1", 1), ("9500", 9500), ("0009", 9), (" 5 ", 5), ("9999999999", 9999999999)]
)
def test_grams_are_digits(text: str, grams: int) -> None:
    assert read("weight_g", text) == ({"weight_g": grams}, {}, [])


@pytest.mark.parametrize(
    "text",
    [
        "1_000",
        "+5",
        "-5",
        "'-5",
        "'+5",
        "1,000",
        "1.0",
        "1e3",
        "0x10",
        "5 000",
        "5g",
        "²",
        "\u0661",
        "\uff15",
        "12345678901",
        "nan",
        "1\n2",
    ],
)
def test_what_is_not_only_digits_is_no_weight(text: str) -> None:
    assert read("weight_g", text) == ({}, {}, ["weight_g"])


@pytest.mark.parametrize("field", ["deceased_on", "acquired_on", "birth_date"])
@pytest.mark.parametrize(
    "text",
    [
        "2014-5-1",
        "2014-05-01T00:00",
        "20140501",
        "2014-05-32",
        "0000-01-01",
        "\u0662\u0660\u0661\u0664-05-01",
        "+2014-05-01",
        "today",
        "14",
    ],
)
def test_what_is_no_iso_date_is_no_date(field: str, text: str) -> None:
    assert read(field, text) == ({}, {}, [field])


@pytest.mark.parametrize("text", ["0000", "\u0662\u0660\u0661\u0664", "201", "20145", "-2014", "2014.0"])
def test_what_is_no_year_is_no_day_of_birth(text: str) -> None:
    assert read("birth_date", text) == ({}, {}, ["birth_date"])


@pytest.mark.parametrize(("said", "estimated"), [("yes", True), ("", True)])
def test_a_year_alone_is_an_estimate(said: str, estimated: bool) -> None:
    fields = ["birth_date", "birth_date_estimated"]
    reader = CellReader(fields, date_format=None, placeholder_names="reject")

    assert reader.read(["2014", said])[0] == {"birth_date": date(2014, 1, 1), "birth_date_estimated": estimated}
    assert reader.read(["2014", "no"])[2] == [
        ("birth_date", "is a year alone, which is an estimate: give a full date, or change birth_date_estimated")
    ]


PLACEHOLDERS = [
    "unknown",
    "unk",
    "none",
    "null",
    "nil",
    "na",
    "n/a",
    "n.a.",
    "tbd",
    "tba",
    "no name",
    "noname",
    "nameless",
    "unnamed",
    "not named",
    "not named yet",
    "not yet named",
    "not provided",
    "not available",
    "not known",
    "not specified",
    "unspecified",
    "undisclosed",
    "x",
    "xx",
    "xxx",
    "xxxx",
]


@pytest.mark.parametrize("text", [*PLACEHOLDERS, "-", "99", "?", "...", "'", "½", "1/2", "§", "12 34", "ＮＡ"])  # noqa: RUF001
def test_every_placeholder_is_one(text: str) -> None:
    for spelled in (text, text.upper(), text.title()):
        assert read("breed", spelled) == ({}, {}, [])
        assert read("name", spelled) == ({}, {}, ["name"])
        assert read("owner_name", spelled) == ({}, {}, ["owner_name"])
        assert read("name", spelled, placeholder_names="keep") == ({"name": spelled}, {}, [])
        assert read("owner_name", spelled, placeholder_names="keep") == ({}, {"name": spelled}, [])


@pytest.mark.parametrize(
    "text", ["xxxxx", "Nona", "unknown dog", "N", "Tbc", "🐶", "9a", "犬", "No", "not-named", "\u0301"]
)
def test_what_says_something_is_no_placeholder(text: str) -> None:
    assert read("breed", text) == ({"breed": text}, {}, [])
    assert read("name", text) == ({"name": text}, {}, [])


@pytest.mark.parametrize("field", ["color", "species", "owner_city", "notes", "external_ref"])
@pytest.mark.parametrize("text", ["unknown", "'unknown", "99", "'99", "'"])
def test_other_fields_know_no_placeholders(field: str, text: str) -> None:
    pet, owner, bad = read(field, text)

    assert [*pet.values(), *owner.values()] == [text]
    assert bad == []


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


@pytest.mark.parametrize(
    ("date_format", "last_day", "no_day"),
    [("%Y%j", "2021365", "2021366"), ("%j/%Y", "365/2021", "366/2021"), ("%Y %U %w", "2021 52 5", "2021 53 6")],
)
def test_a_day_that_a_year_does_not_have_is_not_a_day_of_the_next_year(
    date_format: str, last_day: str, no_day: str
) -> None:
    assert read("birth_date", last_day, date_format=date_format)[0] == {"birth_date": date(2021, 12, 31)}
    assert read("birth_date", no_day, date_format=date_format) == ({}, {}, ["birth_date"])


def test_a_week_of_iso_8601_may_end_in_the_next_year() -> None:
    assert read("birth_date", "2021-W52-7", date_format="%G-W%V-%u")[0] == {"birth_date": date(2022, 1, 2)}
