"""What a single field may hold."""

import sys
import unicodedata
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
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
        # Emoji may be newer than Python's table of characters; what never is a character stays blank.
        *((fields.Notes | None, new, new) for new in ("\U0001fae9", "\U0001fadf", "\u0378")),
        *((fields.Notes | None, blank, None) for blank in ("\ufdd0", "\ufffe", "\U0010ffff", "\ue000", "\u200b\ufdef")),
        (fields.Name, "\U0001fae9", "\U0001fae9"),
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
            for bad in ("", " \u200b", "\uffff", "x" * 101, "a\0b", "a\x1bb", "a\u2028b", "\ud800", b"Rex", 7, None)
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
                date.today() + timedelta(3),
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


def test_a_day_is_in_the_future_when_no_place_on_earth_has_it_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return now.astimezone(tz)

    monkeypatch.setattr(fields, "datetime", Clock)
    first, second = date(2026, 1, 1), date(2026, 1, 2)

    now = datetime(2026, 1, 1, 9, 59, 59, tzinfo=UTC)
    assert read(fields.PastDate, first) == first
    with pytest.raises(ValidationError, match="must not be in the future"):
        read(fields.PastDate, second)
    now = datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert read(fields.PastDate, second) == second


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


@pytest.mark.parametrize(
    ("kind", "longest"),
    [
        (fields.Name, "x" * 100),
        (fields.Email, "x" * 64 + "@" + "y" * 63 + "." + "y" * 63 + "." + "y" * 57 + ".com"),
        (fields.Phone, "1" * 32),
        (fields.Address, "x" * 255),
        (fields.City, "x" * 80),
        (fields.PostalCode, "x" * 16),
        (fields.ExternalRef, "x" * 64),
        (fields.Species, "x" * 50),
        (fields.Breed, "x" * 100),
        (fields.Color, "x" * 50),
        (fields.Notes, "x" * 1_000_000),
        (fields.SearchText, "x" * 100),
    ],
)
def test_a_text_has_as_many_characters_as_its_field_allows_and_not_one_more(kind: Any, longest: str) -> None:
    assert read(kind, longest) == longest
    assert read(kind, f" {longest}\n").strip() == longest
    with pytest.raises(ValidationError):
        read(kind, f"x{longest}")


def test_a_number_of_a_chip_has_at_most_100_characters_with_its_separators() -> None:
    assert read(fields.Microchip, "985141000123456" + " " * 84 + "-") == "985141000123456"
    with pytest.raises(ValidationError, match="100 characters"):
        read(fields.Microchip, "985141000123456" + " " * 85 + "-")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\n"])
def test_a_line_has_no_other_lines(separator: str) -> None:
    for kind in (fields.Name, fields.City, fields.Species, fields.SearchText):
        with pytest.raises(ValidationError, match="control characters"):
            read(kind, f"a{separator}b")


@pytest.mark.parametrize("blank", ["", " ", "\u00a0"])
def test_a_search_for_a_blank_text_is_refused(blank: str) -> None:
    with pytest.raises(ValidationError, match="must not be blank"):
        read(fields.SearchText, blank)


@pytest.mark.parametrize("kind", [fields.Phone, fields.Address, fields.Notes, fields.ExternalRef, fields.Color])
@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u200b\u00a0"])
def test_an_optional_text_that_is_blank_is_null(kind: Any, blank: str) -> None:
    assert read(kind, blank) is None


@pytest.mark.parametrize(
    ("text", "allowed"), [("1234 5", True), ("1234", False), ("1" * 5, True), ("\u0661\u0662\u0663\u0664\u0665", True)]
)
def test_a_phone_number_has_five_digits(text: str, allowed: bool) -> None:
    if allowed:
        assert read(fields.Phone, text) == text
    else:
        with pytest.raises(ValidationError, match="at least 5 digits"):
            read(fields.Phone, text)


def test_the_key_of_a_name_has_300_characters_at_most() -> None:
    assert fields.name_key("\ufdfa" * 16 + "abcdefghijkl") == fields.fold("\ufdfa" * 16) + "abcdefghijkl"
    assert len(fields.name_key("\ufdfa" * 16 + "abcdefghijkl")) == 16 * 18 + 12 == 300
    assert len(fields.name_key("\ufdfa" * 17)) == 300


@pytest.mark.parametrize("kind", [fields.Id, fields.Version, fields.Grams])
def test_a_number_is_one_that_every_database_holds(kind: Any) -> None:
    assert (read(kind, 1), read(kind, 2_147_483_647)) == (1, 2_147_483_647)
    for number in (0, 2_147_483_648):
        with pytest.raises(ValidationError):
            read(kind, number)


def test_an_id_is_one_that_every_database_holds() -> None:
    assert [fields.is_id(value) for value in (0, 1, 2_147_483_647, 2_147_483_648)] == [False, True, True, False]


@pytest.mark.parametrize("top", ["arpa", "invalid", "local", "localhost", "onion", "test"])
def test_an_address_in_a_domain_that_is_no_hosts_is_refused(top: str) -> None:
    with pytest.raises(ValidationError):
        read(fields.Email, f"ada@example.{top}")


def test_today_is_not_in_the_future() -> None:
    assert read(fields.PastDate, date.today()) == date.today()


def test_exactly_controls_separators_and_surrogates_are_forbidden() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1)]
    forbidden = {character for character in characters if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs")}

    assert {character for character in characters if fields._CONTROLS.search(character)} == forbidden
    in_notes = {character for character in characters if fields._CONTROLS_IN_NOTES.search(character)}
    assert in_notes == forbidden - set("\t\n\r")


def test_long_notes_are_not_checked_character_by_character(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = 0

    def category(character: str) -> str:
        nonlocal looked_up
        looked_up += 1
        return original(character)

    original = unicodedata.category
    monkeypatch.setattr(unicodedata, "category", category)

    assert read(fields.Notes, "All is well.\n" * 50_000) is not None
    assert looked_up < 10
