"""Turn shapes into the column values of rows."""

from datetime import UTC, datetime
from typing import Any

from ...fields import name_key
from ...models import PetCreate, PetUpdate, UserCreate, UserUpdate


def new_values(shape: UserCreate | PetCreate) -> dict[str, Any]:
    """Return the columns of a new row; validate again, because the caller may have changed the shape."""
    return stamped(valid_values(type(shape), shape.__dict__))


def valid_values(shape: type[UserCreate] | type[PetCreate], values: dict[str, Any]) -> dict[str, Any]:
    """Return all fields of a shape, validated; model_validate() of SQLModel takes three times as long."""
    valid = object.__new__(shape)
    shape.__pydantic_validator__.validate_python(values, self_instance=valid)
    return vars(valid)


def stamped(values: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a new row: these values, which are valid, and those that no shape has."""
    now = datetime.now(UTC)
    return {**values, "name_key": name_key(values["name"]), "created_at": now, "updated_at": now, "version": 1}


def changed_values(changes: UserUpdate | PetUpdate) -> dict[str, Any]:
    """Return the columns that an Update shape sets; validate again, because the caller may have changed it."""
    given = {name: getattr(changes, name) for name in changes.model_fields_set}
    valid = type(changes).model_validate(given)
    return with_name_key({name: getattr(valid, name) for name in given})


def with_name_key(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values, with the name_key added if the name is one of them."""
    return values | {"name_key": name_key(values["name"])} if "name" in values else values
