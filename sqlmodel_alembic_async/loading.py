"""Load rows into a session with less work than the ORM's own loading, which these plain tables do not need."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_state, set_committed_value
from sqlalchemy.util import await_

from .models import Row

_PACKAGE = __name__.partition(".")[0]
_SLICE = 200  # To make the objects of so many rows takes about a millisecond.


def is_observed(session: Session, model: type[Row]) -> bool:
    """Tell whether the application wants to change how the ORM loads rows, or to be told of it.

    For example, a listener to `do_orm_execute` may hide the rows of other tenants.
    """
    of_session, of_model = session.dispatch, sa.inspect(model).class_manager.dispatch
    return bool(of_session.loaded_as_persistent or of_model.load or of_model.refresh) or any(
        listener.__module__.partition(".")[0] != _PACKAGE for listener in of_session.do_orm_execute
    )


def load(session: Session, connection: Connection, model: type[Row], query: Any, parameters: Any) -> list[Row] | None:
    """Return the rows that a query of the model selects, as rows of the session; it refreshes those that it holds.

    Return None if only the ORM can load them, because the application has mapped further attributes.
    """
    names = tuple(sa.inspect(model).columns.keys())
    result = connection.execute(query, parameters)
    if tuple(result.keys()) != names:
        return None
    rows: list[Row] = []
    for records in result.partitions(_SLICE):
        if rows:
            await_(asyncio.sleep(0))  # Other tasks run.
        rows += _rows(session, model, names, records)
    return rows


def _rows(session: Session, model: type[Row], names: Sequence[str], records: Sequence[Any]) -> list[Row]:
    mapper, held = sa.inspect(model), session.identity_map
    new_instance, identity_key = mapper.class_manager.new_instance, mapper.identity_key_from_primary_key
    id_index, session_id = names.index("id"), session.hash_key
    rows: list[Row] = []
    for record in records:
        key = identity_key((record[id_index],))
        row: Row | None = held.get(key)
        if row is None:
            row = new_instance()
            row.__dict__.update(zip(names, record, strict=True))
            state = instance_state(row)
            state.key, state.session_id = key, session_id
            held.add(state)
        else:
            _refresh(row, zip(names, record, strict=True))
        rows.append(row)
    return rows


def _refresh(row: Row, values: Iterable[tuple[str, Any]]) -> None:
    state = instance_state(row)
    for relationship in state.mapper.relationships:  # As if not loaded: what it refers to may have changed.
        row.__dict__.pop(relationship.key, None)
        state.expired_attributes.discard(relationship.key)
    for name, value in values:
        set_committed_value(row, name, value)
