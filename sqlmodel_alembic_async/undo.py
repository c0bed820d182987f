"""Undo in memory what a rollback undoes in the database; SQLAlchemy by itself only expires what a flush wrote.

A row that the session held is put back as it was, with its version. Expiring it would not do: the next flush would load
the newest version, and an edit of the row would then overwrite changes that the caller has not seen. A row that was
first loaded after its change can only be expired. A statement that is executed on the session's connection, not by the
session, is not seen here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import event, inspect
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, Mapper, ORMExecuteState, Session, SessionTransaction
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.loading import _new_runid
from sqlalchemy.orm.util import identity_key

from .models import TABLES, Pet, User

# The execution options of a statement whose rows were passed to remember() or remember_inserted(), or are deleted.
REMEMBERED = {"sqlmodel_alembic_async_remembered": True}

_MOST_KEYS = 1000  # Of one log. After more of them every row that is loaded counts as changed: memory stays constant.
_READS = ("SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK")  # The first words of statements that change no row.

_State = InstanceState[Any]


@dataclass(slots=True)
class _UndoLog:
    """The changes of one transaction or savepoint.

    `before` holds rows as they were; `changed` and `inserted` hold keys. Every load after the run id `unknown_since`
    follows a statement that may have changed any row.
    """

    before: WeakKeyDictionary[_State, dict[str, Any]] = field(default_factory=WeakKeyDictionary)
    changed: set[Any] = field(default_factory=set)
    inserted: set[Any] = field(default_factory=set)
    unknown_since: int | None = None

    def expect_change(self, keys: list[Any], held: Iterable[_State]) -> None:
        """Keep how these rows are, before they change."""
        self.keep(held)
        if len(self.changed) < _MOST_KEYS:
            self.changed.update(keys)
        else:
            self.expect_inserts()

    def expect_any_change(self, session: Session) -> None:
        """Keep how all rows are, before any of them may change."""
        if self.unknown_since is None:
            self.keep(map(_state_of, _held(session)))
            self.unknown_since = _new_runid()

    def expect_inserts(self) -> None:
        """Take every row that is loaded from now on for a changed one."""
        if self.unknown_since is None:
            self.unknown_since = _new_runid()

    def keep(self, states: Iterable[_State]) -> None:
        """Keep how these rows are, unless they may show a change already."""
        for state in states:
            if state not in self.before and not self._may_show_a_change(state):
                self.before[state] = _image(state)

    def undo(self, session: Session) -> None:
        """Put back the rows that were kept, and expire the others that may show a change."""
        for row in _held(session) if self.unknown_since is not None else _rows(session, self.changed):
            if (state := _state_of(row)) in self.before or self._may_show_a_change(state):
                session.expire(row)
        # Rows that were inserted and then loaded again; SQLAlchemy knows only the objects that it inserted.
        session._expunge_states([_state_of(row) for row in _rows(session, self.inserted)], to_transient=True)
        self.put_back(session)

    def put_back(self, session: Session) -> None:
        """Put back the rows that were kept, but for rows of another session by now."""
        for state, image in list(self.before.items()):
            row = state.obj()
            if row is not None and state.has_identity and state.session_id in (None, session.hash_key):
                for name, value in image.items():
                    set_committed_value(row, name, value)

    def _may_show_a_change(self, state: _State) -> bool:
        was_loaded_since = self.unknown_since is not None and (state.runid or 0) > self.unknown_since
        return was_loaded_since or state.key in self.changed


# Not in session.info, which belongs to the application.
_logs: WeakKeyDictionary[Session, WeakKeyDictionary[SessionTransaction, _UndoLog]] = WeakKeyDictionary()
# The edits of rows that were made before the row came to the session, with the row's image.
_edits: WeakKeyDictionary[Session, WeakKeyDictionary[_State, tuple[dict[str, Any], dict[str, Any]]]] = (
    WeakKeyDictionary()
)


def remember(session: Session, model: type[Any], ids: Iterable[int]) -> None:
    """Keep how rows are, before a statement changes them."""
    if session.autobegin and not session.in_transaction():
        session.begin()
    _remember(session, [identity_key(model, row_id) for row_id in ids])


def remember_inserted(session: Session, model: type[Any], row_id: int) -> None:
    """Note a new row, after its INSERT."""
    _remember_key(session, identity_key(model, row_id))


def undo_everything(session: Session) -> None:
    """Undo in memory what is not committed, before the session is closed: SQLAlchemy leaves the rows as they are."""
    if not session._is_clean():
        _remember_edited(session)
    for transaction in _boundaries(session):
        if transaction._parent is None and _is_joined(transaction):
            break  # Its owner commits or rolls back.
        _restore_new_and_deleted(session, transaction)
        if (log := _log_of(session, transaction)) is not None:
            log.undo(session)
    for state, (image, edits) in list(_edits.pop(session, {}).items()):
        if (row := state.obj()) is not None and state.has_identity and state.session_id in (None, session.hash_key):
            for name, value in image.items():
                set_committed_value(row, name, value)
            for name, value in edits.items():
                setattr(row, name, value)


def _is_joined(transaction: SessionTransaction) -> bool:
    """Tell whether the session uses a transaction that the application began on the connection itself."""
    return any(not should_commit for _, _, should_commit, _ in transaction._connections.values())


def _restore_new_and_deleted(session: Session, transaction: SessionTransaction) -> None:
    # SessionTransaction._restore_snapshot() does this, for the innermost transaction only.
    new = [state for state in transaction._new if _is_ours(state) and state.session_id == session.hash_key]
    deleted = [state for state in transaction._deleted if _is_ours(state) and state not in transaction._new]
    session._expunge_states(new, to_transient=True)
    for state, (old_key, _) in transaction._key_switches.items():
        state.key = old_key
    for state in deleted:
        if state.key is not None:
            session._update_impl(state, revert_deletion=True)


@event.listens_for(Session, "before_flush")
@event.listens_for(Session, "after_rollback")  # SQLAlchemy is about to expire edits that were not flushed.
def _remember_edited(session: Session, *flush: object) -> None:
    edited = [state for state in map(_state_of, (*session.dirty, *session.deleted)) if _is_ours(state)]
    if edited:
        _remember(session, [state.key for state in edited])


@event.listens_for(Session, "pending_to_persistent")
def _remember_new(session: Session, row: object) -> None:
    if isinstance(row, User | Pet):
        _remember_key(session, _state_of(row).key)


@event.listens_for(Session, "detached_to_persistent")
def _remember_earlier_edits(session: Session, row: object) -> None:
    state = _state_of(row)
    if state.modified and isinstance(row, User | Pet):
        columns = [name for name in _columns(state.mapper) if name in state.committed_state]
        if columns:
            edits = {name: state.dict[name] for name in columns if name in state.dict}
            _edits.setdefault(session, WeakKeyDictionary())[state] = (_image(state), edits)


@event.listens_for(Session, "after_commit")
def _forget_earlier_edits(session: Session) -> None:
    if session.get_nested_transaction() is None:
        _edits.pop(session, None)


@event.listens_for(Session, "do_orm_execute")
def _remember_all(execution: ORMExecuteState) -> None:
    """Keep how rows are, before a statement that may change any of them."""
    statement: Any = getattr(execution.statement, "element", execution.statement)  # That of from_statement().
    if isinstance(statement, sa.TextClause):
        is_harmless = statement.text.lstrip()[:10].upper().startswith(_READS)
    else:
        is_harmless = not statement.is_dml or statement.table.name not in TABLES
    if is_harmless or REMEMBERED.items() <= execution.execution_options.items():
        return
    for transaction in _boundaries(execution.session):
        log = _log(execution.session, transaction)
        if statement.is_insert:
            log.expect_inserts()
        else:
            log.expect_any_change(execution.session)


@event.listens_for(Session, "after_soft_rollback")
def _undo_savepoint(session: Session, transaction: SessionTransaction) -> None:
    while not transaction.nested and transaction.parent is not None:
        transaction = transaction.parent
    if (log := _log_of(session, transaction)) is None:
        return
    if transaction.nested:
        log.undo(session)
    else:  # SQLAlchemy has expired every row of the session. One that was expunged keeps its values.
        for state in [state for state in log.before if state.session_id is not None]:
            del log.before[state]
        log.put_back(session)
        _logs.pop(session, None)


def _is_ours(state: _State) -> bool:
    return issubclass(state.class_, (User, Pet))


def _state_of(row: Any) -> _State:
    state: _State = inspect(row)
    return state


def _held(session: Session) -> list[Any]:
    return [row for row in session.identity_map.values() if isinstance(row, User | Pet)]


def _rows(session: Session, keys: Iterable[Any]) -> list[Any]:
    return [row for row in map(session.identity_map.get, keys) if row is not None]


@cache
def _columns(mapper: Mapper[Any]) -> tuple[str, ...]:
    return tuple(mapper.columns.keys())


def _image(state: _State) -> dict[str, Any]:
    """Return the columns as they were before any edit; what was not loaded then is left out."""
    unknown = LoaderCallableStatus.NO_VALUE
    values = {**state.dict, **state.committed_state}
    return {name: value for name in _columns(state.mapper) if (value := values.get(name, unknown)) is not unknown}


def _remember(session: Session, keys: list[Any]) -> None:
    held = [_state_of(row) for row in _rows(session, keys)]
    for transaction in _boundaries(session):
        _log(session, transaction).expect_change(keys, held)


def _remember_key(session: Session, key: Any) -> None:
    for transaction in _boundaries(session):
        log = _log(session, transaction)
        if len(log.inserted) < _MOST_KEYS:
            log.inserted.add(key)
        else:
            log.expect_inserts()


def _log_of(session: Session, transaction: SessionTransaction) -> _UndoLog | None:
    logs = _logs.get(session)
    return None if logs is None else logs.get(transaction)


def _log(session: Session, transaction: SessionTransaction) -> _UndoLog:
    logs = _logs.get(session)
    if logs is None:
        logs = _logs[session] = WeakKeyDictionary()
    if transaction not in logs:
        logs[transaction] = _UndoLog()
    return logs[transaction]


def _boundaries(session: Session) -> Iterator[SessionTransaction]:
    """Yield the session's savepoints, innermost first, and its transaction."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        yield transaction
        transaction = transaction.parent
