"""Value types that normalise and validate: what a single field may hold.

All checks run before any SQL, with the same result for every engine. A blank optional text becomes None.
"""

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict, WithJsonSchema

NAME_LENGTH = 100
NAME_KEY_LENGTH = 300  # Folding may lengthen a name; a longer key would not fit every engine's index.
EMAIL_LENGTH = 254
PHONE_LENGTH = 32
ADDRESS_LENGTH = 255
CITY_LENGTH = 80
POSTAL_CODE_LENGTH = 16
EXTERNAL_REF_LENGTH = 64
SPECIES_LENGTH = 50
BREED_LENGTH = 100
COLOR_LENGTH = 50
MICROCHIP_LENGTH = 15
NOTES_LENGTH = 1_000_000  # A quarter of MariaDB's default max_allowed_packet.

INTEGER_MAX = 2**31 - 1
# Each day begins first there: a date that one process has stored must not be in the future for another.
_FIRST_ZONE = timezone(timedelta(hours=14))
# Most addresses match; only for the others is email_validator imported and called.
_PLAIN_EMAIL = re.compile(
    r"(?P<local>[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*)@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?P<top>[a-z]{2,63})",
    re.ASCII,
)
_LOCAL_LENGTH = 64
_SPECIAL_DOMAINS = {"arpa", "invalid", "local", "localhost", "onion", "test"}  # RFC 6761, RFC 7686, RFC 6762
# The categories Cc, Zl, Zp and Cs; notes may have tabs and line breaks.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROLS_IN_NOTES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_ISO_CHIP = re.compile(r"[0-9]{15}")
_LEGACY_CHIP = re.compile(r"[0-9]{9}|[0-9A-Z]{10}")
_CHIP_SEPARATORS = re.compile(r"[\s.*-]")


def fold(text: str) -> str:
    """Return the form in which names are searched and ordered: case-folded, in the Unicode form NFKC."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def name_key(name: str) -> str:
    """Return the folded name, cut to the length of its column."""
    return fold(name)[:NAME_KEY_LENGTH]


def _clean(text: str, limit: int, *, forbidden: re.Pattern[str] = _CONTROLS) -> str:
    text = unicodedata.normalize("NFC", text).strip()
    if not text.isprintable():
        if forbidden.search(text):
            raise ValueError("must not contain control characters or lone surrogates")
        if not any(map(_is_visible, text)):
            text = ""
    if len(text) > limit:
        raise ValueError(f"must have at most {limit} characters")
    return text


def _is_visible(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "Cn":
        # A newer Unicode version may assign it; a noncharacter is never assigned.
        return not ("\ufdd0" <= character <= "\ufdef" or ord(character) & 0xFFFE == 0xFFFE)
    return category[0] not in "CZ"


def _line(limit: int) -> Callable[[str], str | None]:
    return lambda text: _clean(text, limit) or None


def _name(text: str) -> str:
    text = _clean(text, NAME_LENGTH)
    if not text:
        raise ValueError("must not be blank")
    return text


def _notes(text: str) -> str | None:
    return _clean(text, NOTES_LENGTH, forbidden=_CONTROLS_IN_NOTES) or None


def _search(text: str) -> str:
    """Fold a search text; keep its outer spaces, because "rex " is not a prefix of "rexine"."""
    _clean(text, NAME_LENGTH)
    if not text.strip():
        raise ValueError("must not be blank")
    return name_key(text)


def _email(text: str) -> str | None:
    if not (text := _clean(text, EMAIL_LENGTH)):
        return None
    plain = _PLAIN_EMAIL.fullmatch(lower := text.lower()) if text.isascii() else None
    if plain and "--" not in text and len(plain["local"]) <= _LOCAL_LENGTH and plain["top"] not in _SPECIAL_DOMAINS:
        return lower

    from email_validator import EmailNotValidError, validate_email

    try:
        address = validate_email(text, check_deliverability=False).normalized.lower()
    except EmailNotValidError:
        # Its message quotes the address.
        raise ValueError("must be a valid e-mail address") from None
    return _clean(address, EMAIL_LENGTH)


def _phone(text: str) -> str | None:
    if (text := _clean(text, PHONE_LENGTH)) and sum(map(str.isdecimal, text)) < 5:
        raise ValueError("must have at least 5 digits")
    return text or None


def _species(text: str) -> str | None:
    return _clean(text.lower(), SPECIES_LENGTH) or None


def _microchip(text: str) -> str | None:
    if not _clean(text, NAME_LENGTH):
        return None
    chip = _CHIP_SEPARATORS.sub("", text)
    chip = chip.upper() if chip.isascii() else ""  # "ß" would become two letters.
    if _ISO_CHIP.fullmatch(chip):
        if chip.startswith("999"):
            raise ValueError("must not be a test number (999…)")
        if int(chip[3:]) >= 2**38:
            raise ValueError("must have an identification part of at most 38 bits (ISO 11784)")
    elif not _LEGACY_CHIP.fullmatch(chip):
        raise ValueError("must have 15 digits (ISO 11784), or 9 digits or 10 letters and digits (older chips)")
    return chip


def _iso_date(value: Any) -> Any:
    """Parse YYYY-MM-DD, because JSON has no dates; the strict check refuses every other text."""
    if isinstance(value, str) and _ISO_DATE.fullmatch(value):
        return date.fromisoformat(value)
    return value


def _not_in_the_future(value: date) -> date:
    if value > datetime.now(_FIRST_ZONE).date():
        raise ValueError("must not be in the future")
    return value


def _aware(value: datetime) -> datetime:
    if value.utcoffset() is None:
        raise ValueError("must have a time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time that can be converted to UTC") from None


def _length(maximum: int, minimum: int = 0) -> WithJsonSchema:
    """Document the length of a text; it is checked when the text has been trimmed."""
    return WithJsonSchema({"type": "string", "maxLength": maximum} | ({"minLength": minimum} if minimum else {}))


Name = Annotated[str, Strict(), AfterValidator(_name), _length(NAME_LENGTH, 1)]
Email = Annotated[str, Strict(), AfterValidator(_email), _length(EMAIL_LENGTH)]
Phone = Annotated[str, Strict(), AfterValidator(_phone), _length(PHONE_LENGTH)]
Address = Annotated[str, Strict(), AfterValidator(_line(ADDRESS_LENGTH)), _length(ADDRESS_LENGTH)]
City = Annotated[str, Strict(), AfterValidator(_line(CITY_LENGTH)), _length(CITY_LENGTH)]
PostalCode = Annotated[str, Strict(), AfterValidator(_line(POSTAL_CODE_LENGTH)), _length(POSTAL_CODE_LENGTH)]
Notes = Annotated[str, Strict(), AfterValidator(_notes), _length(NOTES_LENGTH)]
ExternalRef = Annotated[str, Strict(), AfterValidator(_line(EXTERNAL_REF_LENGTH)), _length(EXTERNAL_REF_LENGTH)]
Species = Annotated[str, Strict(), AfterValidator(_species), _length(SPECIES_LENGTH)]
Breed = Annotated[str, Strict(), AfterValidator(_line(BREED_LENGTH)), _length(BREED_LENGTH)]
Color = Annotated[str, Strict(), AfterValidator(_line(COLOR_LENGTH)), _length(COLOR_LENGTH)]
Microchip = Annotated[str, Strict(), AfterValidator(_microchip), _length(NAME_LENGTH)]
SearchText = Annotated[str, Strict(), AfterValidator(_search)]

Sex = Literal["male", "female", "unknown"]
Status = Literal["active", "missing", "deceased"]
Flag = Annotated[bool, Strict()]
Id = Annotated[int, Strict(), Field(ge=1, le=INTEGER_MAX)]
Version = Annotated[int, Strict(), Field(ge=1, le=INTEGER_MAX)]
Grams = Annotated[int, Strict(), Field(ge=1, le=INTEGER_MAX)]
Date = Annotated[date, Strict(), BeforeValidator(_iso_date)]
PastDate = Annotated[Date, AfterValidator(_not_in_the_future)]
Moment = Annotated[datetime, Strict(), AfterValidator(_aware)]


def is_id(value: object) -> bool:
    """Return whether the value is in the range of ids and versions; raise TypeError if it is not an integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected an int, not {type(value).__name__}")
    return 1 <= value <= INTEGER_MAX
