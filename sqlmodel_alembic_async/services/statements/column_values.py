"""Turn shapes into the column values of rows."""

from datetime import UTC, datetime
from typing import Any, TypeVar

from ...fields import name_key
from ...models import PetCreate, PetUpdate, UserCreate, UserUpdate

Shape = TypeVar("Shape", bound=UserCreate | PetCreate | UserUpdate | PetUpdate)


def new_values(shape: UserCreate | PetCreate) -> dict[str, Any]:
    """Return the columns of a new row; validate again, because the caller may have changed the shape."""
    return stamped(valid_values(type(shape), shape.__dict__))


def valid_values(shape: type[UserCreate] | type[PetCreate], values: dict[str, Any]) -> dict[str, Any]:
    """Return all fields of a shape, validated; model_validate() of SQLModel takes three times as long."""
    valid = object.__new__(shape)
    shape.__pydantic_validator__.validate_python(values, self_instance=valid)
    return vars(valid)


def as_shape(shape: type[Shape], data: Shape) -> Shape:
    """Return an instance of a subclass as one of the shape itself, if it satisfies the rules of both classes.

    Raise TypeError if it has more fields: no column could store them.
    """
    subclass = type(data)
    added = {*subclass.model_fields, *(data.model_extra or {})} - shape.model_fields.keys()
    if added:
        names = ", ".join(sorted(added))
        raise TypeError(
            f"{subclass.__name__} has fields that {shape.__name__} does not have: {names}; no column can store them"
        )
    is_update = issubclass(shape, UserUpdate | PetUpdate)
    values = {name: value for name, value in vars(data).items() if not is_update or name in data.model_fields_set}
    # By name: the subclass may have aliases.
    own = subclass.__pydantic_validator__.validate_python(values, self_instance=object.__new__(subclass), by_name=True)
    valid = object.__new__(shape)
    shape.__pydantic_validator__.validate_python({name: vars(own)[name] for name in values}, self_instance=valid)
    object.__setattr__(valid, "__pydantic_fields_set__", set(data.model_fields_set))
    return valid


def stamped(values: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a new row: these valid values, and the columns that callers cannot set."""
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


def settle_birth_date(values: dict[str, Any], stored: dict[str, Any]) -> None:
    """Keep a stored exact birth date if the values only estimate its year; another date is exact unless they say so."""
    day, known_day = values["birth_date"], stored["birth_date"]
    if not values.get("birth_date_estimated"):
        if day != known_day:
            values.setdefault("birth_date_estimated", False)  # The stored flag is about the stored date.
    elif known_day is not None and not stored["birth_date_estimated"] and day.year == known_day.year:
        del values["birth_date"], values["birth_date_estimated"]
