"""Refuse a COMMIT that would commit only a part of the transaction."""

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import PendingRollbackError

from .connection_info import info_of

# In Connection.info: what must be rolled back after a failed statement, "transaction" or "savepoint".
_FAILED_SCOPE = "sqlmodel_alembic_async_failed_scope"
# InnoDB rolls back the transaction: deadlock, record changed since last read (innodb_snapshot_isolation), full lock
# table. The first two are also among the conflicts of error_codes, which this room must not import.
_INNODB_ROLLED_BACK = (1213, 1020, 1206)


def refuse_partial_commits(engine: Engine) -> None:
    """Make commit() raise PendingRollbackError after the database has discarded changes of the transaction.

    PostgreSQL aborts the transaction when a statement fails, and answers COMMIT with a ROLLBACK but without an error.
    ROLLBACK TO SAVEPOINT makes the transaction usable again. MariaDB and MySQL roll back the whole transaction and its
    savepoints after a deadlock and some other errors; the next statement begins a new one. SQLite may roll back the
    whole transaction when the disk is full or fails.
    """
    aborts_on_error = engine.dialect.name == "postgresql"

    def note_failure(context: ExceptionContext) -> None:
        if context.connection is None or context.is_disconnect or context.connection.invalidated:
            return
        was_rolled_back = any(context.original_exception.args[:1] == (code,) for code in _INNODB_ROLLED_BACK)
        if was_rolled_back or _has_lost_transaction(context.connection):
            info_of(context.connection)[_FAILED_SCOPE] = "transaction"
        elif aborts_on_error:
            info_of(context.connection).setdefault(_FAILED_SCOPE, "savepoint")

    event.listen(engine, "handle_error", note_failure)
    event.listen(engine, "begin", _clear)
    event.listen(engine, "rollback_savepoint", _clear_savepoint)
    event.listen(engine, "commit", _refuse_commit)


def _has_lost_transaction(connection: Connection) -> bool:
    return getattr(connection.connection.driver_connection, "has_lost_transaction", False)


def _clear(connection: Connection) -> None:
    info_of(connection).pop(_FAILED_SCOPE, None)


def _clear_savepoint(connection: Connection, *savepoint: object) -> None:
    if info_of(connection).get(_FAILED_SCOPE) != "transaction":
        _clear(connection)


def _refuse_commit(connection: Connection) -> None:
    if _FAILED_SCOPE in connection.info:
        # SQLAlchemy sends no ROLLBACK after a failed COMMIT: it considers the transaction ended.
        connection.dialect.do_rollback(connection.connection)
        raise PendingRollbackError("cannot commit, an earlier statement of this transaction failed: roll back first")
