"""The filters of users and pets; lists, counts, streams, exports and figures take them."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from ...fields import Breed, Date, Flag, Id, Moment, SearchText, Sex, Species, Status
from .prebuilt import Terms

Filters = TypeVar("Filters")

FILTER_CONFIG = ConfigDict(hide_input_in_errors=True, defer_build=True)

_LAST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


class RowFilters(TypedDict, total=False):
    """The filters of both; list_users() and list_pets() explain each."""

    name_prefix: SearchText
    name_contains: SearchText
    archived: Flag | None
    changed_since: Moment


class UserFilters(RowFilters, total=False):
    """The filters of users; list_users() explains each."""


class PetFilters(RowFilters, total=False):
    """The filters of pets; list_pets() explains each."""

    owner_id: Id
    ownerless: Flag
    species: Species
    breed: Breed
    sex: Sex
    status: Status
    born_from: Date
    born_until: Date
    microchipped: Flag


def filter_adapter(filters: type[Filters]) -> TypeAdapter[Filters]:
    """Return the adapter that validates these filters; its errors quote no value."""
    # pydantic ignores hide_input_in_errors of a TypedDict, and refuses a config for one; a union takes it.
    config = ConfigDict(title=filters.__name__, **FILTER_CONFIG)
    return TypeAdapter(filters | None, config=config)  # type: ignore[arg-type]  # None is never given


def validated(adapter: TypeAdapter[Filters], filters: Mapping[str, Any], known: Mapping[str, Any]) -> Filters:
    """Return the filters as the fields normalise them; raise TypeError for an unknown one."""
    if unknown := filters.keys() - known.keys():
        raise TypeError(f"unknown filter {', '.join(sorted(unknown))}: choose from {', '.join(sorted(known))}")
    return adapter.validate_python(filters)


_USER_FILTERS = filter_adapter(UserFilters)
_PET_FILTERS = filter_adapter(PetFilters)


def user_terms(filters: UserFilters) -> Terms:
    """Return the conditions that the filters stand for."""
    return row_terms(validated(_USER_FILTERS, filters, UserFilters.__annotations__))


def pet_terms(filters: PetFilters) -> Terms:
    """Return the conditions that the filters stand for."""
    filters = validated(_PET_FILTERS, filters, PetFilters.__annotations__)
    terms = row_terms(filters)
    for name in ("owner_id", "species", "breed", "sex", "status"):
        if name in filters:
            terms |= null_term(name, True) if filters[name] is None else {(name, "eq"): filters[name]}
    if "ownerless" in filters:
        terms |= null_term("owner_id", filters["ownerless"])
    if "microchipped" in filters:
        terms |= null_term("microchip", not filters["microchipped"])
    if "born_from" in filters:
        terms["birth_date", "ge"] = filters["born_from"]
    if "born_until" in filters:
        terms["birth_date", "le"] = filters["born_until"]
    return terms


def row_terms(filters: RowFilters) -> Terms:
    """Return the conditions that the shared filters stand for."""
    terms: Terms = {}
    if prefix := filters.get("name_prefix"):
        terms["name_key", "ge"] = prefix  # A range: LIKE does not use the index on every engine.
        if end := _after_every(prefix):
            terms["name_key", "lt"] = end
    if part := filters.get("name_contains"):
        terms["name_key", "contains"] = part
    if (archived := filters.get("archived", False)) is not None:
        terms |= null_term("archived_at", not archived)
    if "changed_since" in filters:
        terms["updated_at", "ge"] = filters["changed_since"]
    return terms


def null_term(column: str, is_null: bool) -> Terms:
    """Return the condition that the column is null, or that it is not."""
    return {(column, "is_" if is_null else "is_not"): None}


def _after_every(prefix: str) -> str | None:
    """Return the smallest text that sorts after every text with this prefix; None if there is none."""
    head = prefix.rstrip(chr(_LAST_CHARACTER))
    if not head:
        return None
    code = ord(head[-1]) + 1
    return head[:-1] + chr(_SURROGATES.stop if code in _SURROGATES else code)
