"""Undo in memory what a rollback undoes in the database; SQLAlchemy by itself only expires what a flush wrote.

A row that the session held is put back as it was, with its version: an expired row would be read anew at the next
flush, and an edit of it would then overwrite a newer row. A row that was first read after its change is expired.
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

# The execution options of a statement that changes only rows that were passed to remember(), inserted or deleted.
REMEMBERED = {"sqlmodel_alembic_async_remembered": True}

_LOGS = "sqlmodel_alembic_async_logs"
_WATCHED = "sqlmodel_alembic_async_watched"
_MOST_KEYS = 1000  # What changes more rows one by one is taken to change any: memory does not grow with them.
_HARMLESS = ("SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK")

_State = InstanceState[Any]


@dataclass(slots=True)
class _UndoLog:
    """The changes of one transaction or savepoint.

    `before` holds rows as they were, `changed` the keys of changed rows. Loads after the number `unknown_since` follow
    a statement that may have changed any row.
    """

    before: WeakKeyDictionary[_State, dict[str, Any]] = field(default_factory=WeakKeyDictionary)
    changed: set[Any] = field(default_factory=set)
    unknown_since: int | None = None

    def add(self, states: Iterable[_State]) -> None:
        """Keep how these rows are, unless they may show a change already."""
        for state in states:
            if state not in self.before and not self._may_show_a_change(state):
                self.before[state] = _image(state)

    def expect_any_change(self, session: Session) -> None:
        """Keep how all rows are, before any of them may change."""
        if self.unknown_since is None:
            self.add(inspect(row) for row in filter(_is_ours, session.identity_map.values()))
            self.unknown_since = _new_runid()

    def undo(self, session: Session) -> None:
        """Put back the rows that were kept, and expire the others that may show a change."""
        if not self.changed and self.unknown_since is None:
            return
        for row in filter(_is_ours, session.identity_map.values()):
            if (state := inspect(row)) in self.before or self._may_show_a_change(state):
                session.expire(row)
        for state, image in self.before.items():
            if state.has_identity and (row := state.obj()) is not None:
                for name, value in image.items():
                    set_committed_value(row, name, value)

    def _may_show_a_change(self, state: _State) -> bool:
        was_read_since = self.unknown_since is not None and (state.runid or 0) > self.unknown_since
        return was_read_since or state.key in self.changed


def remember(session: Session, model: type[Any], ids: Iterable[int]) -> None:
    """Keep how rows are, before a statement changes them."""
    if session.autobegin and not session.in_transaction():
        session.begin()
    _remember(session, [identity_key(model, row_id) for row_id in ids])


def undo_everything(session: Session) -> None:
    """Undo in memory what is not committed: closing a session rolls back, and tells SQLAlchemy's rows nothing of it."""
    if not session._is_clean():
        _remember_edited(session)
    for transaction in _boundaries(session):
        if _LOGS in session.info or transaction._new or transaction._dirty or transaction._deleted:
            for state in transaction._new:  # SQLAlchemy does this for the innermost one only.
                transaction._deleted.pop(state, None)
            transaction._restore_snapshot(dirty_only=True)
            _log(session, transaction).undo(session)


@event.listens_for(Session, "before_flush")
@event.listens_for(Session, "after_rollback")  # SQLAlchemy is about to expire edits that were not flushed.
def _remember_edited(session: Session, *flush: object) -> None:
    if edited := [inspect(row).key for row in filter(_is_ours, session.dirty)]:
        _remember(session, edited)


@event.listens_for(Session, "pending_to_persistent")
def _remember_new(session: Session, row: object) -> None:
    if session.in_nested_transaction():
        _remember(session, [inspect(row, raiseerr=True).key])


@event.listens_for(Session, "after_begin")
def _watch(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.nested and connection not in (watched := session.info.setdefault(_WATCHED, WeakSet())):
        watched.add(connection)
        event.listen(connection, "before_cursor_execute", partial(_remember_all, ref(session)))


def _remember_all(
    watching: ref[Session],
    connection: Connection,
    cursor: object,
    statement: str,
    parameters: object,
    context: ExecutionContext,
    executemany: bool,
) -> None:
    """Keep how all rows are, before a statement in a savepoint that may change any of them."""
    session = watching()
    if session is None or session._flushing or REMEMBERED.items() <= context.execution_options.items():
        return
    if not statement.lstrip()[:10].upper().startswith(_HARMLESS):
        for transaction in _boundaries(session):
            if transaction.nested:
                _log(session, transaction).expect_any_change(session)


@event.listens_for(Session, "after_soft_rollback")
def _undo_savepoint(session: Session, transaction: SessionTransaction) -> None:
    while not transaction.nested and transaction.parent is not None:
        transaction = transaction.parent
    if transaction.nested:
        _log(session, transaction).undo(session)
    else:  # SQLAlchemy has expired every row.
        session.info.pop(_LOGS, None)


def _is_ours(row: object) -> bool:
    return isinstance(row, User | Pet)


def _image(state: _State) -> dict[str, Any]:
    """Return the columns as they were before any edit; what was not loaded then is left out."""
    unknown = LoaderCallableStatus.NO_VALUE
    values = {**state.dict, **state.committed_state}
    return {name: value for name in state.class_.model_fields if (value := values.get(name, unknown)) is not unknown}


def _remember(session: Session, keys: list[Any]) -> None:
    held = [inspect(row) for key in keys if (row := session.identity_map.get(key)) is not None]
    for transaction in _boundaries(session):
        log = _log(session, transaction)
        log.add(held)
        if len(log.changed) < _MOST_KEYS:
            log.changed.update(keys)
        else:
            log.expect_any_change(session)


def _log(session: Session, transaction: SessionTransaction) -> _UndoLog:
    logs: WeakKeyDictionary[SessionTransaction, _UndoLog] = session.info.setdefault(_LOGS, WeakKeyDictionary())
    if transaction not in logs:
        logs[transaction] = _UndoLog()
    return logs[transaction]


def _boundaries(session: Session) -> Iterator[SessionTransaction]:
    """Yield the session's savepoints, innermost first, and its transaction."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        yield transaction
        transaction = transaction.parent
