"""What IPython's open session has done in its transaction so far: row changes, locks, and failed statements."""

import asyncio
import re
from typing import Any, cast
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, SessionTransaction

_READS = re.compile(
    r"[\s(]*(?:SELECT|WITH|VALUES|TABLE|SHOW|EXPLAIN|DESC|DESCRIBE|PRAGMA|SET|SAVEPOINT|RELEASE|ROLLBACK)\b"
    r"(?!.*\b(?:INSERT|UPDATE|DELETE|REPLACE|MERGE|INTO)\b)",
    flags=re.IGNORECASE | re.DOTALL,
)
_LOCKS = re.compile(
    r"[\s(]*(?:SELECT|WITH)\b.*\b(?:FOR\s+(?:NO\s+KEY\s+)?UPDATE|FOR\s+(?:KEY\s+)?SHARE|LOCK\s+IN\s+SHARE)\b",
    flags=re.IGNORECASE | re.DOTALL,
)


class Changes:
    """The changes of a session since its transaction began.

    Attributes:
        takes_locks: A statement has locked rows, which the next cell may need.
        tasks: The tasks that have used the transaction.

    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._forget()
        event.listen(session, "after_begin", self._watch)
        event.listen(session, "after_transaction_create", self._note_savepoint)
        event.listen(session, "after_soft_rollback", self._undo_to_savepoint)
        event.listen(session, "after_transaction_end", self._forget_ended)

    def count(self) -> int:
        """Return the number of rows that statements have inserted, updated and deleted, or that wait for a flush."""
        session = self._session
        waiting = [*session.new, *session.deleted, *filter(session.is_modified, session.dirty)]
        return self._executed + len(waiting)

    def have_failed(self) -> bool:
        """Return whether a statement outside of a savepoint has failed, or a flush: the transaction must be undone."""
        return self._is_running or self._have_failed or not self._session.is_active

    def _forget(self) -> None:
        self._executed = 0
        self._is_running = False  # A statement has begun, and has not succeeded.
        self._have_failed = False
        self._before_savepoints: WeakKeyDictionary[SessionTransaction, int] = WeakKeyDictionary()
        self.takes_locks = False
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()

    def _forget_ended(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            self._forget()

    def _watch(self, session: Session, transaction: SessionTransaction, connection: Connection) -> None:
        event.listen(connection, "before_cursor_execute", self._begin_statement)
        event.listen(connection, "after_cursor_execute", self._end_statement)

    def _begin_statement(self, *statement: object) -> None:
        self._have_failed = self._have_failed or self._is_running
        self._is_running = True
        self.tasks.add(cast("asyncio.Task[Any]", asyncio.current_task()))  # A coroutine runs in a task.

    def _end_statement(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, is_many: bool
    ) -> None:
        self._is_running = False
        if _LOCKS.match(statement):
            self.takes_locks = True
        elif not _READS.match(statement):
            # Not known for DDL, and by some drivers not for many rows.
            rows = cursor.rowcount if cursor.rowcount >= 0 else len(parameters) if is_many else 1
            self._executed += rows

    def _note_savepoint(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:
            self._before_savepoints[transaction] = self._executed

    def _undo_to_savepoint(self, session: Session, transaction: SessionTransaction) -> None:
        while not transaction.nested and transaction.parent is not None:
            transaction = transaction.parent  # The rollback of a failed statement is that of a part of the savepoint.
        if transaction.nested:
            self._executed = self._before_savepoints[transaction]
            self._is_running = self._have_failed = False
