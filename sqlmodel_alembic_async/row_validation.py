"""Validate each row before INSERT and UPDATE: SQLModel does not validate the instances of table classes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import event, inspect
from sqlalchemy.orm import object_session
from sqlmodel import SQLModel

from .fields import name_key

# The values of rows that a service is writing by a flush.
_written: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()


def validate_on_flush(shape: type[SQLModel], table: type[SQLModel]) -> None:
    """Validate and normalise the rows of a table with a shape (a pydantic model) when they are flushed.

    An invalid row makes the flush raise pydantic.ValidationError. A constructor call with an unknown field raises
    TypeError.
    """
    event.listen(table, "init", _refuse_unknown_fields)
    event.listen(table, "before_insert", partial(_validate_new, shape))
    event.listen(table, "before_update", partial(_validate_changed, shape))


@contextmanager
def written_by_service(rows: Iterable[Any]) -> Iterator[None]:
    """Do not validate these rows when they are flushed in the block, unless a listener of the application changes them.

    A service has validated what it writes, and sets `updated_at`. Whether its values agree with those that are stored
    is left to the constraints of the database, as it is when the service writes by a statement.
    """
    states = {inspect(row): dict(row.__dict__) for row in rows}
    _written.update(states)
    try:
        yield
    finally:
        for state in states:
            _written.pop(state, None)


def is_as_a_service_wrote_it(row: Any) -> bool:
    """Return whether a service is writing this row by a flush, and no listener has changed it."""
    return bool(_written.get(inspect(row)) == row.__dict__)


def _refuse_unknown_fields(row: SQLModel, args: object, values: dict[str, Any]) -> None:
    known = inspect(type(row)).attrs.keys()
    if unknown := values.keys() - set(known):
        raise TypeError(f"{type(row).__name__} has no field {', '.join(sorted(unknown))}")


def _validate_new(shape: type[SQLModel], mapper: object, connection: object, row: Any) -> None:
    if is_as_a_service_wrote_it(row):
        return
    row.created_at = row.created_at or datetime.now(UTC)
    row.updated_at = row.updated_at or row.created_at
    _validate(shape, row)


def _validate_changed(shape: type[SQLModel], mapper: object, connection: object, row: Any) -> None:
    """Validate a changed row. SQLAlchemy also calls it for a row of which only a collection has changed: no UPDATE."""
    session = object_session(row)
    if is_as_a_service_wrote_it(row):
        return
    if session is not None and session.is_modified(row, include_collections=False):
        row.updated_at = datetime.now(UTC)
        _validate(shape, row)


def _validate(shape: type[SQLModel], row: Any) -> None:
    values = {name: getattr(row, name) for name in shape.model_fields}
    valid = shape.model_validate({**values, "name_key": ""}).__dict__
    valid["name_key"] = name_key(valid["name"])
    for name, value in valid.items():
        if values[name] is not value:
            setattr(row, name, value)
