"""The filters of users and pets, for lists, counts, streams, exports and statistics."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from ...fields import Breed, Date, Flag, Id, Moment, SearchText, Sex, Species, Status
from .prebuilt import Terms

Filters = TypeVar("Filters")

FILTER_CONFIG = ConfigDict(hide_input_in_errors=True, defer_build=True)

_LAST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


def _not_blank(text: str | None) -> str:
    if text is None:  # A blank text is one that a field reads as null.
        raise ValueError("must not be blank: to ask for pets without one, use species_known or breed_known")
    return text


_NotBlank = AfterValidator(_not_blank)


class RowFilters(TypedDict, total=False):
    """The filters that users and pets share; list_users() and list_pets() explain each. None does not filter."""

    name_prefix: SearchText | None
    name_contains: SearchText | None
    archived: Flag | None
    changed_since: Moment | None


class UserFilters(RowFilters, total=False):
    """The filters of users; list_users() explains each. None does not filter."""


class PetFilters(RowFilters, total=False):
    """The filters of pets; list_pets() explains each. None does not filter."""

    owner_id: Id | None
    ownerless: Flag | None
    species: Annotated[Species, _NotBlank] | None
    species_known: Flag | None
    breed: Annotated[Breed, _NotBlank] | None
    breed_known: Flag | None
    sex: Sex | None
    status: Status | None
    born_from: Date | None
    born_until: Date | None
    microchipped: Flag | None


# The filters that ask whether a column is null: the column, and the value of the filter that asks for null.
_NULL_FILTERS = {
    "ownerless": ("owner_id", True),
    "microchipped": ("microchip", False),
    "species_known": ("species", False),
    "breed_known": ("breed", False),
}
_TERMS_OF_PETS = {
    **{name: (name, "eq") for name in ("owner_id", "species", "breed", "sex", "status")},
    "born_from": ("birth_date", "ge"),
    "born_until": ("birth_date", "le"),
}


def filter_adapter(filters: type[Filters]) -> TypeAdapter[Filters]:
    """Return the adapter that validates these filters; its errors quote no value."""
    # pydantic accepts a config for a union, not for a TypedDict, whose own hide_input_in_errors it ignores.
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
    for name, value in filters.items():
        if value is not None and name in _TERMS_OF_PETS:
            terms[_TERMS_OF_PETS[name]] = value
        elif value is not None and name in _NULL_FILTERS:
            column, asks_for_null = _NULL_FILTERS[name]
            terms |= null_term(column, value is asks_for_null)
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
    if (changed_since := filters.get("changed_since")) is not None:
        terms["updated_at", "ge"] = changed_since
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
