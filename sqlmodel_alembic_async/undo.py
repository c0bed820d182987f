"""Restore a session's rows in memory when a rollback undoes their changes in the database.

SQLAlchemy itself only expires the rows that a flush has written. An expired row is read again at the next flush, with
the newest version number, so that an edit of it could overwrite a newer row. Therefore this module restores the values
and the version that a row had before its change. It expires a row that the session first read after the change.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from sqlalchemy import event, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, Session, SessionTransaction
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.loading import _new_runid
from sqlalchemy.orm.util import identity_key

from .models import Pet, User

# Execution options of a statement that only inserts or deletes rows, or changes rows that were passed to remember().
REMEMBERED = {"sqlmodel_alembic_async_remembered": True}

_LOGS = "sqlmodel_alembic_async_logs"
_WATCHED = "sqlmodel_alembic_async_watched"
_MAX_KEYS = 1000  # After more changed rows than this, any row counts as changed: this bounds the memory of a log.
_CHANGES_NO_ROW = ("SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK")

_State = InstanceState[Any]


@dataclass(slots=True)
class _UndoLog:
    """The changes of one transaction or savepoint.

    Attributes:
        before: The rows' values before their changes.
        changed: The identity keys of changed rows.
        unknown_since: SQLAlchemy's load counter (runid) at the first statement that may have changed any row; None if
            there was no such statement. A row that was loaded later may show that statement's changes.

    """

    before: WeakKeyDictionary[_State, dict[str, Any]] = field(default_factory=WeakKeyDictionary)
    changed: set[Any] = field(default_factory=set)
    unknown_since: int | None = None

    def add(self, states: Iterable[_State]) -> None:
        """Save the values of these rows, except of those that may already show a change."""
        for state in states:
            if state not in self.before and not self._may_show_a_change(state):
                self.before[state] = _stored_values(state)

    def assume_any_row_changes(self, session: Session) -> None:
        """Save the values of all rows, before a statement that may change any of them."""
        if self.unknown_since is None:
            self.add(inspect(row) for row in filter(_has_undo, session.identity_map.values()))
            self.unknown_since = _new_runid()

    def undo(self, session: Session) -> None:
        """Restore the saved rows, and expire the other rows that may show a change."""
        if not self.changed and self.unknown_since is None:
            return
        for row in filter(_has_undo, session.identity_map.values()):
            if (state := inspect(row)) in self.before or self._may_show_a_change(state):
                session.expire(row)
        for state, values in self.before.items():
            if state.has_identity and (row := state.obj()) is not None:
                for name, value in values.items():
                    set_committed_value(row, name, value)

    def _may_show_a_change(self, state: _State) -> bool:
        was_read_since = self.unknown_since is not None and (state.runid or 0) > self.unknown_since
        return was_read_since or state.key in self.changed


def remember(session: Session, model: type[Any], ids: Iterable[int]) -> None:
    """Save the values of rows before a statement changes them."""
    if session.autobegin and not session.in_transaction():
        session.begin()
    _remember(session, [identity_key(model, row_id) for row_id in ids])


def undo_everything(session: Session) -> None:
    """Restore all rows with uncommitted changes; to be called before Session.close(), which does not do it."""
    if not session._is_clean():
        _remember_edited(session)
    for transaction in _boundaries(session):
        if _LOGS in session.info or transaction._new or transaction._dirty or transaction._deleted:
            for state in transaction._new:  # SQLAlchemy does this only for the innermost savepoint.
                transaction._deleted.pop(state, None)
            transaction._restore_snapshot(dirty_only=True)
            _log(session, transaction).undo(session)


@event.listens_for(Session, "before_flush")
@event.listens_for(Session, "after_rollback")  # SQLAlchemy expires unflushed edits immediately after this event.
def _remember_edited(session: Session, *flush: object) -> None:
    if edited := [inspect(row).key for row in filter(_has_undo, session.dirty)]:
        _remember(session, edited)


@event.listens_for(Session, "pending_to_persistent")
def _remember_new(session: Session, row: object) -> None:
    if session.in_nested_transaction():
        _remember(session, [inspect(row, raiseerr=True).key])


@event.listens_for(Session, "after_begin")
def _listen_to_statements(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.nested and connection not in (watched := session.info.setdefault(_WATCHED, WeakSet())):
        watched.add(connection)
        event.listen(connection, "before_cursor_execute", partial(_remember_all, ref(session)))


def _remember_all(
    session_ref: ref[Session],
    connection: Connection,
    cursor: object,
    statement: str,
    parameters: object,
    context: ExecutionContext,
    executemany: bool,
) -> None:
    """Save the values of all rows, before a statement in a savepoint that may change any of them."""
    session = session_ref()
    if session is None or session._flushing or REMEMBERED.items() <= context.execution_options.items():
        return
    if not statement.lstrip()[:10].upper().startswith(_CHANGES_NO_ROW):
        for transaction in _boundaries(session):
            if transaction.nested:
                _log(session, transaction).assume_any_row_changes(session)


@event.listens_for(Session, "after_soft_rollback")
def _undo_savepoint(session: Session, transaction: SessionTransaction) -> None:
    while not transaction.nested and transaction.parent is not None:
        transaction = transaction.parent
    if transaction.nested:
        _log(session, transaction).undo(session)
    else:  # SQLAlchemy has expired all rows.
        session.info.pop(_LOGS, None)


def _has_undo(row: object) -> bool:
    return isinstance(row, User | Pet)


def _stored_values(state: _State) -> dict[str, Any]:
    """Return the loaded columns with their values before any unflushed edit."""
    unknown = LoaderCallableStatus.NO_VALUE
    values = {**state.dict, **state.committed_state}
    return {name: value for name in state.class_.model_fields if (value := values.get(name, unknown)) is not unknown}


def _remember(session: Session, keys: list[Any]) -> None:
    loaded = [inspect(row) for key in keys if (row := session.identity_map.get(key)) is not None]
    for transaction in _boundaries(session):
        log = _log(session, transaction)
        log.add(loaded)
        if len(log.changed) < _MAX_KEYS:
            log.changed.update(keys)
        else:
            log.assume_any_row_changes(session)


def _log(session: Session, transaction: SessionTransaction) -> _UndoLog:
    logs: WeakKeyDictionary[SessionTransaction, _UndoLog] = session.info.setdefault(_LOGS, WeakKeyDictionary())
    if transaction not in logs:
        logs[transaction] = _UndoLog()
    return logs[transaction]


def _boundaries(session: Session) -> Iterator[SessionTransaction]:
    """Yield the session's savepoints from the innermost to the outermost, then its transaction."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        yield transaction
        transaction = transaction.parent
