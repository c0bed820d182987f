"""What a single field may hold."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sqlmodel_alembic_async import fields


def read(kind: Any, value: object) -> object:
    return TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        (fields.Name, " Rex\u00a0\n", "Rex"),
        (fields.Name, "Zoe\u0308", "Zo\u00eb"),
        (fields.Name, "Squeak\u00a0& Pip", "Squeak\u00a0& Pip"),
        (fields.Name, "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
        (fields.Name, "x" * 100, "x" * 100),
        (fields.Email | None, "Ada@Example.COM", "ada@example.com"),
        (fields.Email | None, " ", None),
        (fields.Phone | None, "+44 (0)1 23-45", "+44 (0)1 23-45"),
        (fields.Phone | None, "", None),
        (fields.PostalCode | None, "07302", "07302"),
        (fields.City | None, "\u200b", None),
        (fields.Species | None, " Dog ", "dog"),
        (fields.Breed | None, "Retriever, Labrador", "Retriever, Labrador"),
        (fields.Notes | None, "one\r\n\ttwo", "one\r\n\ttwo"),
        (fields.Microchip | None, "985-141.000 123*456", "985141000123456"),
        (fields.Microchip | None, "274274877906943", "274274877906943"),
        (fields.Microchip | None, "a1b2c3d4e5", "A1B2C3D4E5"),
        (fields.Microchip | None, "123 456 789", "123456789"),
        (fields.Microchip | None, "", None),
        (fields.PastDate, "2020-02-29", date(2020, 2, 29)),
        (fields.PastDate, date(1, 1, 1), date(1, 1, 1)),
        (fields.Date, date.max, date.max),
        (
            fields.Moment,
            datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            datetime(2019, 12, 31, 23, tzinfo=UTC),
        ),
        (fields.SearchText, "ZO\u00cb ", "zo\u00eb "),
        (fields.SearchText, "Stra\u00dfe", "strasse"),
    ],
)
def test_a_good_value_is_kept_normalised(kind: Any, given: object, kept: object) -> None:
    assert read(kind, given) == kept


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        *(
            (fields.Name, bad)
            for bad in ("", " \u200b", "x" * 101, "a\0b", "a\x1bb", "a\u2028b", "\ud800", b"Rex", 7, None)
        ),
        *(
            (fields.Email, bad)
            for bad in ("ada", "ada@localhost", "a b@example.com", "x" * 243 + "@example.com", "a\0@b.com")
        ),
        *((fields.Phone, bad) for bad in ("1234", "12345\n6", "1" * 33)),
        *((fields.Notes, bad) for bad in ("a\0b", "\udfff", "x" * 1_000_001)),
        *((fields.Species, bad) for bad in ("x" * 51, "a\tb")),
        *(
            (fields.Microchip, bad)
            for bad in (
                "98514100012345",
                "999000000000001",
                "985274877906944",
                "985999999999999",
                "\u0669\u0668\u0665141000123456",
                "a1b2c3d4\u00df",
                "***",
            )
        ),
        *(
            (fields.PastDate, bad)
            for bad in (
                date.today() + timedelta(1),
                datetime(2020, 1, 1),
                "2020-1-1",
                "2020-02-30",
                "20200101",
                0,
                True,
            )
        ),
        *((fields.Id, bad) for bad in (0, -1, True, 1.0, "1", 2**31, 2**63)),
        *((fields.Grams, bad) for bad in (0, -1, True, 1.5, float("nan"), 2**31)),
        *((fields.Flag, bad) for bad in (0, 1, "true", "yes")),
        *((fields.Sex, bad) for bad in ("UNKNOWN", "m", "")),
        *((fields.Status, bad) for bad in ("Active", "dead")),
        *((fields.Moment, bad) for bad in (datetime(2020, 1, 1), date(2020, 1, 1), "2020-01-01T00:00:00Z", 0)),
        (fields.Moment, datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))),
    ],
)
def test_a_bad_value_is_refused(kind: Any, given: object) -> None:
    with pytest.raises(ValidationError):
        read(kind, given)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("o'Neill@Example.com", "o'neill@example.com"),
        ("ada@b\u00fccher.example", "ada@b\u00fccher.example"),
        ("ada@xn--bcher-kva.example", "ada@b\u00fccher.example"),
        ("\u00e4da@example.com", "\u00e4da@example.com"),
        ("ada@example\u3002com", "ada@example.com"),
    ],
)
def test_an_address_that_is_not_plain_is_normalised(given: str, kept: str) -> None:
    assert read(fields.Email, given) == kept


@pytest.mark.parametrize(
    "given",
    [
        '"ada lovelace"@example.com',
        "ada@[127.0.0.1]",
        "ada@host.test",
        "ada@printer.local",
        "ada@1.0.0.127.in-addr.arpa",
        "ada@xn--zzzzzzz-.com",
        "ada..l@example.com",
    ],
)
def test_an_address_that_is_not_plain_may_be_refused_and_is_not_quoted(given: str) -> None:
    with pytest.raises(ValueError, match="must be a valid e-mail address") as caught:
        fields._email(given)

    assert caught.value.__cause__ is None
    assert given not in str(caught.value)


_LABELS = st.text("aZ09-x", min_size=1, max_size=4) | st.text("a-", min_size=60, max_size=65)
_TOPS = st.sampled_from(["com", "CO", "c", "c0m", "test", "Local", "arpa", "localhost", "invalid", "onion", "example"])
_LOCALS = st.text("aZ09_+-.'", min_size=1, max_size=6) | st.text("a.", min_size=62, max_size=66)


@settings(max_examples=500, deadline=None)
@given(_LOCALS, st.lists(_LABELS, max_size=5), _TOPS)
def test_an_address_is_judged_as_email_validator_judges_it(local: str, labels: list[str], top: str) -> None:
    address = f"{local}@{'.'.join([*labels, top])}"
    try:
        expected: str | None = validate_email(address, check_deliverability=False).normalized.lower()
    except EmailNotValidError:
        expected = None

    try:
        judged = fields._email(address)
    except ValueError:
        judged = None

    assert judged == expected


@pytest.mark.parametrize(
    ("one", "other"), [("ZO\u00cb", "zoe\u0308"), ("\u03a3\u0391\u03a3", "\u03c3\u03b1\u03c2"), ("\uff32ex", "REX")]
)
def test_folded_names_are_equal_in_any_case_and_form(one: str, other: str) -> None:
    assert fields.name_key(one) == fields.name_key(other)


def test_a_name_key_never_outgrows_its_column() -> None:
    assert len(fields.name_key("\ufdfa" * 100)) == fields.NAME_KEY_LENGTH


@pytest.mark.parametrize("value", ["1", 1.0, True, None])
def test_an_id_that_is_no_integer_is_a_mistake_in_the_program(value: object) -> None:
    with pytest.raises(TypeError, match="expected an int"):
        fields.is_id(value)
