"""What makes two rows duplicates: the keys that they share, without any SQL.

search.py selects the candidates for a new row with the same rules in SQL: change _user_candidates() and
_pet_candidates() there together with _user_keys() and _pet_keys() here.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from ...fields import Microchip, fold
from ...models import Pet, User
from ..statements.filters import FILTER_CONFIG

DuplicateReason = Literal[
    "microchip",
    "name_and_microchip",
    "name_and_phone",
    "mailbox",
    "owner_name_and_species",
    "name_and_postal_code",
    "owner_and_name",
    "name_and_email",
    "name_species_and_birth_date",
]
Key = tuple[DuplicateReason, str]  # A reason, and the text that the rows share.

# In the order in which groups list their reasons.
_WEIGHTS: dict[DuplicateReason, int] = {
    "microchip": 5,
    "name_and_microchip": 4,
    "name_and_phone": 4,
    "mailbox": 3,
    "owner_name_and_species": 3,
    "name_and_postal_code": 2,
    "owner_and_name": 2,
    "name_and_email": 1,
    "name_species_and_birth_date": 1,
}
_MICROCHIP_REASONS: set[DuplicateReason] = {"microchip", "name_and_microchip"}

MAX_GROUP_SIZE = 100

_SHARDS = 64

GMAIL = "gmail.com"
GMAIL_DOMAINS = (GMAIL, "googlemail.com")

ISO_LENGTH = 15
_LEGACY_LENGTH = 9
_MICROCHIP: TypeAdapter[str | None] = TypeAdapter(Microchip, config=FILTER_CONFIG)
_WRITTEN_CHIP = re.compile(r"(?<![0-9])[0-9](?:[\s.*-]{0,3}[0-9]){14}(?![0-9])")
_PHONE_LENGTH = 7  # People often leave out the country and area code.
_NO_DIGIT = re.compile(r"\D")
_EXTENSION = re.compile(r"(?<=\d)[\s,.(]*(?:x|ext|#|;).*", re.DOTALL)
_SEPARATORS_OF_LOCAL_PART = re.compile(r"[._-]")
_ZIP_PLUS_FOUR = re.compile(r"([0-9]{5})[0-9]{4}")


class Member(NamedTuple):
    """The properties of a row that decide whether a shared key counts."""

    id: int
    chip_length: int
    has_species: bool


class Group(NamedTuple):
    """Rows that may be duplicates: each of them has all of these keys."""

    ids: tuple[int, ...]
    keys: frozenset[Key]
    reasons: tuple[DuplicateReason, ...]


class DuplicateIndex:
    """Rows by key; it compares no pairs of rows, and takes a few hundred bytes for each row.

    It has many small dictionaries, because a dictionary is copied when it grows. They hold numbers instead of objects,
    because the garbage collector does not visit numbers.
    """

    def __init__(self) -> None:
        self._first: dict[str, list[dict[str, int]]] = defaultdict(_shards)
        self._shared: list[dict[Key, tuple[int, ...]]] = _shards()

    def add(self, member: Member, keys: Iterable[Key]) -> None:
        """Add a row; `keys` must not repeat a key."""
        number = _packed(member)
        for reason, text in keys:
            shard = hash(text) % _SHARDS
            first = self._first[reason][shard].setdefault(text, number)
            if first != number:
                numbers = self._shared[shard].get((reason, text), (first,))
                if len(numbers) <= MAX_GROUP_SIZE:
                    self._shared[shard][reason, text] = (*numbers, number)

    def take_groups(self) -> list[Group]:
        """Return the groups of rows that share a key, highest score first, and empty the index."""
        shared: dict[Key, list[Member]] = {}
        for shard in self._shared:
            kept = {key: numbers for key, numbers in shard.items() if len(numbers) <= MAX_GROUP_SIZE}
            shared |= {key: list(map(_unpacked, sorted(numbers))) for key, numbers in kept.items()}
            shard.clear()
        for shards in self._first.values():
            for first in shards:
                first.clear()
        keys_of_member: dict[Member, set[Key]] = defaultdict(set)
        for key, members in shared.items():
            for member in members:
                keys_of_member[member].add(key)
        groups: dict[tuple[int, ...], Group] = {}
        for (reason, _), members in shared.items():
            ids = tuple(member.id for member in members)
            if ids not in groups:
                keys = frozenset.intersection(*(frozenset(keys_of_member[member]) for member in members))
                # If the key itself does not count, other keys put these rows into a larger group.
                if reason in (reasons := valid_reasons(keys, members)):
                    groups[ids] = Group(ids, keys, reasons)
        return sorted(groups.values(), key=lambda group: (-score(group.reasons), group.ids))


def _shards() -> list[dict[Any, Any]]:
    return [{} for _ in range(_SHARDS)]


def _packed(member: Member) -> int:
    return member.id << 32 | member.chip_length << 1 | member.has_species


def _unpacked(number: int) -> Member:
    return Member(number >> 32, (number & 0xFFFFFFFF) >> 1, bool(number & 1))


def valid_reasons(keys: Iterable[Key], members: Sequence[Member]) -> tuple[DuplicateReason, ...]:
    """Return the reasons of the shared keys that count for these rows."""
    reasons = {reason for reason, _ in keys}
    if all(member.has_species for member in members):
        reasons.discard("owner_and_name")  # "owner_name_and_species" tells whether the species agree.
    if members[0].chip_length and len({member.chip_length for member in members}) == 1:
        reasons &= _MICROCHIP_REASONS  # Different numbers of the same kind: these are different animals.
    return tuple(reason for reason in _WEIGHTS if reason in reasons)


def score(reasons: Iterable[DuplicateReason]) -> int:
    """Return the sum of the weights of these reasons."""
    return sum(_WEIGHTS[reason] for reason in reasons)


def member_of(row: Any) -> Member:
    """Return the member of a row, which may be any object with the attributes of a row."""
    return Member(row.id, len(getattr(row, "microchip", None) or ""), bool(getattr(row, "species", None)))


def keys_of(model: type[User] | type[Pet], row: Any) -> frozenset[Key]:
    """Return the keys of a row, which may be any object with the attributes of a row."""
    return frozenset(_KEYS[model](row))


def _user_keys(user: Any) -> Iterator[Key]:
    name = user.name_key
    if user.phone and (number := _phone_end(user.phone)):
        yield "name_and_phone", f"{name}\0{number}"
    if user.postal_code and (code := _postal_key(user.postal_code)):
        yield "name_and_postal_code", f"{name}\0{code}"
    if user.email:
        local, domain = mailbox_of(user.email)
        yield "mailbox", f"{local}@{domain}"
        if words := _SEPARATORS_OF_LOCAL_PART.sub("", local):
            yield "name_and_email", f"{name}\0{words}"


def _pet_keys(pet: Any) -> Iterator[Key]:
    name = pet.name_key
    for chip in chips_of(pet):
        yield "microchip", chip
    for end in chip_ends_of(pet):
        yield "name_and_microchip", f"{name}\0{end}"
    species = fold(pet.species) if pet.species else None
    if pet.owner_id is not None:
        yield "owner_and_name", f"{pet.owner_id}\0{name}"
        if species:
            yield "owner_name_and_species", f"{pet.owner_id}\0{name}\0{species}"
    if species and pet.birth_date and not pet.birth_date_estimated:
        yield "name_species_and_birth_date", f"{name}\0{species}\0{pet.birth_date}"


_KEYS: dict[Any, Callable[[Any], Iterator[Key]]] = {User: _user_keys, Pet: _pet_keys}


def mailbox_of(email: str) -> tuple[str, str]:
    """Return the local part and the domain of an address, without a +tag, and at Gmail without dots."""
    local, _, domain = email.rpartition("@")
    local = local.partition("+")[0] or local
    return (local.replace(".", ""), GMAIL) if domain in GMAIL_DOMAINS else (local, domain)


def chips_of(pet: Any) -> set[str]:
    """Return the microchip numbers of a pet; without an ISO number, also the one in its external_ref or notes."""
    chips = {pet.microchip} if pet.microchip else set()
    if len(pet.microchip or "") < ISO_LENGTH:
        written = {chip for text in (pet.external_ref, pet.notes) if text for chip in _chips_in(text)}
        if len(written) == 1:  # Several numbers belong to several animals.
            chips |= written
    return chips


def chip_ends_of(pet: Any) -> set[str]:
    """Return the last nine digits of the numbers, which is what older systems store."""
    return {chip[-_LEGACY_LENGTH:] for chip in chips_of(pet) if chip.isdigit()}


def _chips_in(text: str) -> Iterator[str]:
    for written in _WRITTEN_CHIP.findall(text):
        try:
            yield str(_MICROCHIP.validate_python(written))
        except ValidationError:
            continue


def _phone_end(phone: str) -> str | None:
    digits = _NO_DIGIT.sub("", _EXTENSION.sub("", fold(phone)))
    end = str(int(digits[-_PHONE_LENGTH:] or 0))  # int() also reads digits of other scripts.
    return end if len(set(end)) > 1 else None  # 0000000 and 5555555 are placeholders.


def _postal_key(postal_code: str) -> str:
    code = "".join(filter(str.isalnum, fold(postal_code)))
    code = _ZIP_PLUS_FOUR.sub(r"\1", code) if len(code) == 9 else code
    return code.lstrip("0") if code.isdecimal() else code  # Spreadsheets drop leading zeros.
