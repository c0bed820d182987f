"""Load rows into a session with less work than the ORM's own loading, which these plain tables do not need."""

import asyncio
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import instance_state, set_committed_value
from sqlalchemy.util import await_

from .models import Row

_PACKAGE = __name__.partition(".")[0]
_EVENTS = (
    *("do_orm_execute", "after_begin", "after_transaction_create", "after_transaction_end"),
    *("after_rollback", "after_soft_rollback"),
)
_NOT_LOADED = {"select", True, "raise", "raise_on_sql", "noload", None, "dynamic", "write_only"}
_SLICE = 200  # To make the objects of so many rows takes about a millisecond.


def can_load(session: Session, model: type[Row]) -> bool:
    """Tell whether load() does what the ORM would do: the application has mapped and listens to nothing that differs.

    For example, a listener to `do_orm_execute` may hide the rows of other tenants, and one to `after_begin` may tell
    the database whose rows to show.
    """
    of_session, mapper = session.dispatch, sa.inspect(model)
    of_model = mapper.class_manager.dispatch
    return (
        _is_plain(mapper, len(mapper.attrs))
        and not (of_session.loaded_as_persistent or of_model.load or of_model.refresh)
        and all(_is_own(listener) for name in _EVENTS for listener in getattr(of_session, name))
    )


def _is_own(listener: Any) -> bool:
    module: str | None = getattr(listener, "__module__", None)
    return module is not None and module.partition(".")[0] == _PACKAGE


@lru_cache(maxsize=100)
def _is_plain(mapper: Mapper[Any], attributes: int) -> bool:
    """Tell whether the mapped attributes are the table's columns, and relationships that are not loaded with a row.

    The number of attributes is there for the cache: the application may map more of them later.
    """
    columns = {name: attribute.columns for name, attribute in mapper.column_attrs.items()}
    return (
        mapper.polymorphic_on is None
        and columns == {column.name: [column] for column in mapper.local_table.columns}
        and not any(attribute.deferred for attribute in mapper.column_attrs)
        and len(columns) + len(mapper.relationships) == attributes
        and all(relationship.lazy in _NOT_LOADED for relationship in mapper.relationships)
    )


def load(session: Session, connection: Connection, model: type[Row], query: Any, parameters: Any) -> list[Row]:
    """Return the rows that a query of the model selects, as rows of the session; it refreshes those that it holds."""
    result = connection.execute(query, parameters)
    names = tuple(result.keys())
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
