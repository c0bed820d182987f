"""A COMMIT that would not commit the whole transaction is refused."""

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import PendingRollbackError

from .connection_info import info_of

_LOST = "sqlmodel_alembic_async_lost"
_DEADLOCK = 1213  # MariaDB's and MySQL's errno.


def refuse_partial_commits(engine: Engine) -> None:
    """Raise PendingRollbackError from a commit() of less than was done.

    PostgreSQL answers the COMMIT after a failed statement with a silent ROLLBACK; a savepoint helps. MariaDB and MySQL
    end the whole transaction in a deadlock, savepoints and all, and begin another one. SQLite ends it where the storage
    is full or fails, and knows whether it did.
    """
    fails_as_a_whole = engine.dialect.name == "postgresql"

    def note_failure(context: ExceptionContext) -> None:
        if context.connection is None or context.is_disconnect:
            return
        is_deadlock = context.original_exception.args[:1] == (_DEADLOCK,)
        if is_deadlock or _has_ended(context.connection):
            info_of(context.connection)[_LOST] = "all"
        elif fails_as_a_whole:
            info_of(context.connection).setdefault(_LOST, "since the savepoint")

    event.listen(engine, "handle_error", note_failure)
    event.listen(engine, "begin", _forget)
    event.listen(engine, "rollback_savepoint", _forget_savepoint)
    event.listen(engine, "commit", _refuse)


def _has_ended(connection: Connection) -> bool:
    return getattr(connection.connection.driver_connection, "has_ended", False)  # Only SQLite's connection knows.


def _forget(connection: Connection) -> None:
    connection.info.pop(_LOST, None)


def _forget_savepoint(connection: Connection, *savepoint: object) -> None:
    # A connection that was invalidated has no info: its transaction is over.
    if not connection.invalidated and connection.info.get(_LOST) != "all":
        _forget(connection)


def _refuse(connection: Connection) -> None:
    if _LOST in connection.info:
        # SQLAlchemy takes a transaction that was to be committed for ended, whatever comes of it.
        connection.dialect.do_rollback(connection.connection)
        raise PendingRollbackError("an earlier statement of this transaction failed: roll back first")
