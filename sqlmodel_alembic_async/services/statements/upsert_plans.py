"""What an upsert changes: the values that a shape gives, against what is stored."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ...errors import PetDeceasedError
from ...import_report import Outcome
from ...models import PetCreate, UserCreate
from .column_values import settle_birth_date, stamped, valid_values, with_name_key

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """The values of one row: all of them, which a new row gets, and those that were given and are not None."""

    key: str
    all_values: Values
    given: Values


@dataclass(slots=True)
class Plan:
    """What becomes of the rows with one key.

    Attributes:
        outcomes: The outcome of each row.
        values: The columns of the row to write; None if nothing changes.
        changed: The columns in which the stored row changes.

    """

    outcomes: list[Outcome] = field(default_factory=list)
    values: Values | None = None
    changed: set[str] = field(default_factory=set)


def given_values(key: str, data: UserCreate | PetCreate) -> Given:
    """Return the values of a shape, validated again, because the caller may have changed it.

    Raise ValueError if it has no value of the key.
    """
    values = valid_values(type(data), vars(data))
    if values[key] is None:
        raise ValueError(f"a row has no {key}, by which rows are matched: set it, or create the row without upsert")
    given = {name: values[name] for name in data.model_fields_set if values[name] is not None}
    return Given(values[key], values, given)


def changes_of(stored: Values, given: Values) -> Values:
    """Return the columns of a stored row that the given values change; raise PetDeceasedError for another owner."""
    values = dict(given)
    if "birth_date" in values:
        settle_birth_date(values, stored)
    if values.get("owner_id", stored.get("owner_id")) != stored.get("owner_id"):
        if stored["status"] == "deceased" and "id" in stored:
            raise PetDeceasedError(stored["id"])
        values.setdefault("acquired_on", None)  # The stored day is the previous owner's.
    return with_name_key({name: value for name, value in values.items() if value != stored[name]})


def plan(stored: Values | None, rows: Iterable[Given]) -> Plan:
    """Return what becomes of the rows of one key, applied one after the other to the stored row."""
    planned = Plan()
    current = None if stored is None else dict(stored)
    for row in rows:
        if current is None:
            current = stamped(row.all_values)
            planned.outcomes.append("created")
        else:
            changes = changes_of(current, row.given)
            current |= changes
            planned.outcomes.append("updated" if changes else "unchanged")
    if stored is None:
        planned.values = current
    elif current is not None and current != stored:
        planned.changed = {name for name, value in current.items() if value != stored[name]}
        planned.values = current | {"version": stored["version"] + 1, "updated_at": datetime.now(UTC)}
    return planned
