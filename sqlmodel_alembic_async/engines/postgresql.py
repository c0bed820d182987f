"""All that is PostgreSQL's own: after a failed statement its COMMIT rolls back, and says nothing."""

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import PendingRollbackError

_FAILED = "sqlmodel_alembic_async_failed"


def refuse_silent_rollbacks(engine: Engine) -> None:
    """Make a commit() raise PendingRollbackError where the server would drop the whole transaction instead."""
    event.listen(engine, "handle_error", _note_failure)
    event.listen(engine, "commit", _refuse_commit)
    event.listen(engine, "begin", _forget_failure)
    event.listen(engine, "rollback_savepoint", _forget_failure)


def _note_failure(context: ExceptionContext) -> None:
    if context.connection is not None and not context.is_disconnect:
        context.connection.info[_FAILED] = True


def _refuse_commit(connection: Connection) -> None:
    if connection.info.get(_FAILED):
        # SQLAlchemy takes a transaction that was to be committed for ended, whatever comes of it.
        connection.dialect.do_rollback(connection.connection)
        raise PendingRollbackError("an earlier statement of this transaction failed: roll back first")


def _forget_failure(connection: Connection, *savepoint: object) -> None:
    connection.info.pop(_FAILED, None)
