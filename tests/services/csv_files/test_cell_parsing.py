"""Cells of a file, one by one: every word that is understood, and what looks like one."""

from datetime import date
from typing import Any

import pytest

from sqlmodel_alembic_async.services.csv_files.cell_parsing import CellReader
from sqlmodel_alembic_async.services.csv_files.file_format import COLUMNS


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
    assert reader.read(["2014", "no"])[2] == [("birth_date", "is a year alone, which is an estimate")]


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
