"""The columns that the shapes of callers become."""

from datetime import UTC, datetime
from typing import Any

from ...fields import name_key
from ...models import PetCreate, PetUpdate, UserCreate, UserUpdate


def new_values(shape: UserCreate | PetCreate) -> dict[str, Any]:
    """Return the columns of a new row, validated again: a shape can be changed after it was made."""
    return stamped(valid_values(type(shape), shape.__dict__))


def valid_values(shape: type[UserCreate] | type[PetCreate], values: dict[str, Any]) -> dict[str, Any]:
    """Return all columns of a shape with these values; SQLModel's own way to validate takes three times as long."""
    valid = object.__new__(shape)
    shape.__pydantic_validator__.validate_python(values, self_instance=valid)
    return vars(valid)


def stamped(values: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a new row with these valid values."""
    now = datetime.now(UTC)
    return {**values, "name_key": name_key(values["name"]), "created_at": now, "updated_at": now, "version": 1}


def changed_values(changes: UserUpdate | PetUpdate) -> dict[str, Any]:
    """Return the columns that an Update shape gives, validated again."""
    given = {name: getattr(changes, name) for name in changes.model_fields_set}
    valid = type(changes).model_validate(given)
    return with_name_key({name: getattr(valid, name) for name in given})


def with_name_key(values: dict[str, Any]) -> dict[str, Any]:
    """Return the changes, with the folded name where the name changes."""
    return values | {"name_key": name_key(values["name"])} if "name" in values else values
