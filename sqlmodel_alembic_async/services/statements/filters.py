"""What narrows a list, a count and a stream: the filters that users and pets share."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from ...fields import Flag, Moment, SearchText
from .prebuilt import Terms

Filters = TypeVar("Filters")

FILTER_CONFIG = ConfigDict(hide_input_in_errors=True, defer_build=True)

_LAST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


class RowFilters(TypedDict, total=False):
    """`archived`: False (the default) leaves archived rows out, True gives only them, None gives both.

    `changed_since`: rows added or changed at that moment or later, as `updated_at` says; a deleted row leaves no trace.
    """

    name_prefix: SearchText
    name_contains: SearchText
    archived: Flag | None
    changed_since: Moment


def filter_adapter(filters: type[Filters]) -> TypeAdapter[Filters]:
    """Return the adapter that validates these filters; its errors show no value."""
    # pydantic does not read hide_input_in_errors from a TypedDict, and takes no configuration beside one.
    config = ConfigDict(title=filters.__name__, **FILTER_CONFIG)
    return TypeAdapter(filters | None, config=config)  # type: ignore[arg-type]  # None is never given


def validated(adapter: TypeAdapter[Filters], filters: Mapping[str, Any], known: Mapping[str, Any]) -> Filters:
    """Return the filters as the fields normalise them; raise TypeError for an unknown one."""
    if unknown := filters.keys() - known.keys():
        raise TypeError(f"unknown filter {', '.join(sorted(unknown))}: choose from {', '.join(sorted(known))}")
    return adapter.validate_python(filters)


def row_terms(filters: RowFilters) -> Terms:
    """Return what the shared filters ask for."""
    terms: Terms = {}
    if prefix := filters.get("name_prefix"):
        terms["name_key", "ge"] = prefix  # A range, for LIKE can not use every engine's index.
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
    """Ask for rows where the column is null, or for those where it is not."""
    return {(column, "is_" if is_null else "is_not"): None}


def _after_every(prefix: str) -> str | None:
    """Return the first text behind all that begin with the prefix, or None where there is none."""
    head = prefix.rstrip(chr(_LAST_CHARACTER))
    if not head:
        return None
    code = ord(head[-1]) + 1
    return head[:-1] + chr(_SURROGATES.stop if code in _SURROGATES else code)
