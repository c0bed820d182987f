"""Restore a session's rows in memory when a rollback undoes their changes in the database.

SQLAlchemy itself only expires the rows that a flush has written. An expired row is read again at the next flush, with
the newest version number, so that an edit of it could overwrite a newer row. Therefore this module restores the values
and the version that a row had before its change. It expires a row that the session first read after the change.
Statements that are executed on the session's connection, and not by the session, are not noticed, nor are those in a
common table expression of PostgreSQL, as WITH ... AS (UPDATE ...) SELECT.
"""

from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, object_session
from sqlalchemy.orm.util import identity_key

from .models import TABLES, Pet, User
from .undo_log import State, UndoLog, edits_of, restore, rows_of, state_of

# Execution option: _remember_all() skips the statement, because the caller saves its rows or it deletes them.
REMEMBERED = {"sqlmodel_alembic_async_remembered": True}

_CHANGES_NO_ROW = ("SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK")

# Not in session.info: an application may clear that.
_logs: WeakKeyDictionary[Session, WeakKeyDictionary[SessionTransaction, UndoLog]] = WeakKeyDictionary()
# Rows that were edited before they were added to the session: their stored values, and the edits, of relationships too.
_earlier_edits: WeakKeyDictionary[Session, WeakKeyDictionary[State, tuple[dict[str, Any], dict[str, Any]]]] = (
    WeakKeyDictionary()
)


def remember(session: Session, model: type[Any], ids: Iterable[int]) -> None:
    """Save the values of rows before a statement changes them."""
    _begin(session)
    _remember(session, [identity_key(model, row_id) for row_id in ids])


def remember_insert(session: Session, model: type[Any], row_id: int) -> None:
    """Note a new row, after its INSERT."""
    _remember_insert(session, identity_key(model, row_id))


def undo_everything(session: Session) -> None:
    """Restore all rows with uncommitted changes; to be called before Session.close(), which does not do it."""
    if not session._is_clean():
        _remember_edited(session)
    for transaction in _boundaries(session):
        if transaction._parent is None and _is_joined(transaction):
            break  # The application commits it, or rolls it back.
        _restore_new_and_deleted(session, transaction)
        if (log := _existing_log(session, transaction)) is not None:
            log.undo(session)
    earlier = list(_earlier_edits.pop(session, {}).items())
    # To edit the relationship of one row changes another row: restore all rows first.
    for state, edits in [(state, edits) for state, (values, edits) in earlier if restore(session, state, values)]:
        for name, value in edits.items():
            setattr(state.obj(), name, value)


def _is_joined(transaction: SessionTransaction) -> bool:
    """Tell whether the application began this transaction on the connection itself."""
    return any(not should_commit for _, _, should_commit, _ in transaction._connections.values())


def _restore_new_and_deleted(session: Session, transaction: SessionTransaction) -> None:
    """Do for an outer transaction what SQLAlchemy's _restore_snapshot() does for the innermost one only."""
    new = [state for state in transaction._new if _has_undo(state) and state.session_id == session.hash_key]
    deleted = [state for state in transaction._deleted if _has_undo(state) and state not in transaction._new]
    session._expunge_states(new, to_transient=True)
    for state, (old_key, _) in transaction._key_switches.items():
        state.key = old_key
    for state in deleted:
        if state.key is not None:
            session._update_impl(state, revert_deletion=True)


@event.listens_for(User, "before_update", propagate=True)
@event.listens_for(Pet, "before_update", propagate=True)
@event.listens_for(User, "before_delete", propagate=True)
@event.listens_for(Pet, "before_delete", propagate=True)
def _remember_flushed(mapper: object, connection: object, row: object) -> None:
    # Not in before_flush: there, a listener of the application may edit further rows.
    session: Any = object_session(row)
    _remember(session, [state_of(row).key])


@event.listens_for(Session, "after_rollback")  # SQLAlchemy expires unflushed edits immediately after this event.
def _remember_edited(session: Session) -> None:
    edited = [state.key for state in map(state_of, (*session.dirty, *session.deleted)) if _has_undo(state)]
    if edited:
        _remember(session, edited)


@event.listens_for(Session, "pending_to_persistent")
def _remember_new(session: Session, row: object) -> None:
    if isinstance(row, User | Pet):
        _remember_insert(session, state_of(row).key)


@event.listens_for(Session, "detached_to_persistent")
def _remember_earlier_edits(session: Session, row: object) -> None:
    state = state_of(row)
    if state.modified and isinstance(row, User | Pet):
        _earlier_edits.setdefault(session, WeakKeyDictionary())[state] = edits_of(state)


@event.listens_for(Session, "persistent_to_detached")
@event.listens_for(Session, "deleted_to_detached")
def _remember_detached(session: Session, row: object) -> None:
    if session in _logs and isinstance(row, User | Pet):
        for transaction in _boundaries(session):
            if (log := _existing_log(session, transaction)) is not None:
                log.add_detached(state_of(row))


@event.listens_for(Session, "after_commit")
def _forget_earlier_edits(session: Session) -> None:
    if session.get_nested_transaction() is None:
        _earlier_edits.pop(session, None)


@event.listens_for(Session, "do_orm_execute")
def _remember_all(execution: ORMExecuteState) -> None:
    """Save the values of all rows, before a statement that may change any of them."""
    statement: Any = _unwrapped(execution.statement)  # Unwraps from_statement().
    if isinstance(statement, sa.TextClause):
        changes_no_row = statement.text.lstrip()[:10].upper().startswith(_CHANGES_NO_ROW)
    else:
        changes_no_row = not statement.is_dml or _unwrapped(statement.table).name not in TABLES  # Of table.alias().
    if changes_no_row or REMEMBERED.items() <= execution.execution_options.items():
        return
    _begin(execution.session)
    for transaction in _boundaries(execution.session):
        log = _log(execution.session, transaction)
        if type(statement) is sa.Insert:  # The subclasses have ON CONFLICT and ON DUPLICATE KEY UPDATE.
            log.assume_any_row_is_inserted()
        else:
            log.assume_any_row_changes(execution.session)


def _unwrapped(element: Any) -> Any:
    while (inner := getattr(element, "element", None)) is not None:
        element = inner
    return element


@event.listens_for(Session, "after_soft_rollback")
def _undo_savepoint(session: Session, transaction: SessionTransaction) -> None:
    while not transaction.nested and transaction.parent is not None:
        transaction = transaction.parent
    if (log := _existing_log(session, transaction)) is None:
        return
    if transaction.nested:
        log.undo(session)
    else:  # SQLAlchemy has expired the rows of the session, but not those that were expunged from it.
        for state in [state for state in log.before if state.session_id is not None]:
            del log.before[state]
        log.restore(session)
        _logs.pop(session, None)


def _has_undo(state: State) -> bool:
    return issubclass(state.class_, (User, Pet))


def _begin(session: Session) -> None:
    if session.autobegin and not session.in_transaction():
        session.begin()


def _remember(session: Session, keys: list[Any]) -> None:
    held = [state_of(row) for row in rows_of(session, keys)]
    for transaction in _boundaries(session):
        _log(session, transaction).add_changes(keys, held)


def _remember_insert(session: Session, key: Any) -> None:
    for transaction in _boundaries(session):
        _log(session, transaction).add_insert(key)


def _existing_log(session: Session, transaction: SessionTransaction) -> UndoLog | None:
    logs = _logs.get(session)
    return None if logs is None else logs.get(transaction)


def _log(session: Session, transaction: SessionTransaction) -> UndoLog:
    logs = _logs.get(session)
    if logs is None:
        logs = _logs[session] = WeakKeyDictionary()
    if transaction not in logs:
        logs[transaction] = UndoLog()
    return logs[transaction]


def _boundaries(session: Session) -> Iterator[SessionTransaction]:
    """Yield the open savepoints, innermost first, and then the transaction."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        yield transaction
        transaction = transaction.parent
