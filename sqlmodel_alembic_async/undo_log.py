"""The undo log: the values that rows had before the changes of one transaction or savepoint."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, Mapper, Session, make_transient
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.loading import _new_runid

from .models import Pet, User

MAX_KEYS = 1000  # Bounds the memory: after more changed rows, any row counts as changed.

State = InstanceState[Any]


@dataclass(slots=True)
class UndoLog:
    """The changes of one transaction or savepoint.

    Attributes:
        before: The rows' values before their changes.
        changed: The identity keys of changed rows.
        inserted: The identity keys of inserted rows.
        unknown_since: SQLAlchemy's load counter (runid) at the first statement that may have changed or inserted any
            row; None if there was no such statement. A row that was loaded later may show that statement's changes.
        any_row_changed: Whether there was a statement that may have changed any row.
        detached: Rows that left the session, and that may show a change or are inserted.

    """

    before: WeakKeyDictionary[State, dict[str, Any]] = field(default_factory=WeakKeyDictionary)
    changed: set[Any] = field(default_factory=set)
    inserted: set[Any] = field(default_factory=set)
    unknown_since: int | None = None
    any_row_changed: bool = False
    detached: WeakSet[State] = field(default_factory=WeakSet)

    def add_changes(self, keys: Iterable[Any], held: Iterable[State]) -> None:
        """Save the values of the held rows, before a statement changes the rows with these keys."""
        self._save(held)
        if len(self.changed) < MAX_KEYS:
            self.changed.update(keys)
        else:
            self.assume_any_row_is_inserted()

    def add_insert(self, key: Any) -> None:
        """Note the key of a new row."""
        if len(self.inserted) < MAX_KEYS:
            self.inserted.add(key)
        else:
            self.assume_any_row_is_inserted()

    def assume_any_row_changes(self, session: Session) -> None:
        """Save the values of all rows, before a statement that may change any of them."""
        if not self.any_row_changed:
            self._save(map(state_of, _held(session)))
            self.any_row_changed = True
            self.assume_any_row_is_inserted()

    def assume_any_row_is_inserted(self) -> None:
        """Count every row that is loaded from now on as changed."""
        if self.unknown_since is None:
            self.unknown_since = _new_runid()

    def add_detached(self, state: State) -> None:
        """Note a row that leaves the session."""
        if state.key in self.inserted or (state not in self.before and self._may_show_a_change(state)):
            self.detached.add(state)

    def undo(self, session: Session) -> None:
        """Restore the saved rows, remove the inserted ones, and expire the others that may show a change."""
        for row in _held(session) if self.unknown_since is not None else rows_of(session, self.changed):
            if (state := state_of(row)) in self.before or self._may_show_a_change(state):
                session.expire(row)
        # SQLAlchemy removes the objects that were inserted, not those that were loaded after the INSERT.
        session._expunge_states([state_of(row) for row in rows_of(session, self.inserted)], to_transient=True)
        self.restore(session)

    def restore(self, session: Session) -> None:
        """Restore the saved rows; of those that left the session, remove the inserted ones and expire the others."""
        for state, values in list(self.before.items()):
            restore(session, state, values)
        for state in self.detached:
            if (row := state.obj()) is None or not state.detached:
                continue
            if state.key in self.inserted:
                make_transient(row)
            else:
                state._expire(state.dict, set())

    def _save(self, states: Iterable[State]) -> None:
        for state in states:
            if state not in self.before and not self._may_show_a_change(state):
                self.before[state] = stored_values(state)

    def _may_show_a_change(self, state: State) -> bool:
        was_loaded_since = self.unknown_since is not None and (state.runid or 0) > self.unknown_since
        return was_loaded_since or state.key in self.changed


def restore(session: Session, state: State, values: dict[str, Any]) -> bool:
    """Set the values of a row, and return True; return False if it no longer exists or is in another session."""
    row = state.obj()
    if row is None or not state.has_identity or state.session_id not in (None, session.hash_key):
        return False
    if state.detached:
        state._expire(state.dict, set())
    for name, value in values.items():
        set_committed_value(row, name, value)
    return True


def stored_values(state: State) -> dict[str, Any]:
    """Return the columns as they were before any edit, without those that were not loaded then."""
    unknown = LoaderCallableStatus.NO_VALUE
    values = {**state.dict, **state.committed_state}
    return {name: value for name in columns(state.mapper) if (value := values.get(name, unknown)) is not unknown}


def edits_of(state: State) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of a row as they were before its edits, and the edits, those of relationships included."""
    edits = {
        name: _copy(state.dict[name])
        for name in (*columns(state.mapper), *_relationships(state.mapper))
        if name in state.committed_state and name in state.dict
    }
    before = {name: state.committed_state[name] for name in edits}
    known = {name: value for name, value in before.items() if not isinstance(value, LoaderCallableStatus)}
    return stored_values(state) | known, edits


def _copy(value: Any) -> Any:
    # Of a collection of related rows: the original one changes when the row is restored.
    return next((kind(value) for kind in (list, set, dict) if isinstance(value, kind)), value)


@cache
def columns(mapper: Mapper[Any]) -> tuple[str, ...]:
    """Return the names of the columns."""
    return tuple(mapper.columns.keys())


def _relationships(mapper: Mapper[Any]) -> tuple[str, ...]:
    # The others are never loaded: SQLAlchemy keeps a list of their changes instead of their rows.
    return tuple(name for name, kind in mapper.relationships.items() if kind.lazy not in ("dynamic", "write_only"))


def state_of(row: Any) -> State:
    """Return SQLAlchemy's state of a row."""
    state: State = inspect(row)
    return state


def rows_of(session: Session, keys: Iterable[Any]) -> list[Any]:
    """Return the rows with these identity keys that the session holds."""
    return [row for row in map(session.identity_map.get, keys) if row is not None]


def _held(session: Session) -> list[Any]:
    return [row for row in session.identity_map.values() if isinstance(row, User | Pet)]
