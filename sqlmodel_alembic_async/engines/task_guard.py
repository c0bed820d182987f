"""One task at a time: a connection is no place for two to meet."""

import asyncio

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import InvalidRequestError

from .connection_info import info_of

_TASK = "sqlmodel_alembic_async_task"


def refuse_second_tasks(engine: Engine) -> None:
    """Raise InvalidRequestError for a statement, or a COMMIT, while another task's statement is under way.

    COMMIT and ROLLBACK close the connection then: what that task still does must not land in another transaction.
    """
    event.listen(engine, "before_cursor_execute", _enter)
    event.listen(engine, "after_cursor_execute", _leave)
    event.listen(engine, "handle_error", _leave_by_error)
    event.listen(engine, "commit", _refuse_commit)
    event.listen(engine, "rollback", _give_up)


def _is_busy(connection: Connection) -> bool:
    task = info_of(connection).get(_TASK)
    return task is not None and task is not asyncio.current_task() and not task.done()


def _refusal() -> InvalidRequestError:
    return InvalidRequestError("another task is using this session: each task needs one of its own")


def _enter(connection: Connection, *statement: object) -> None:
    if _is_busy(connection):
        raise _refusal()
    connection.info[_TASK] = asyncio.current_task()


def _leave(connection: Connection, *statement: object) -> None:
    info_of(connection)[_TASK] = None


def _leave_by_error(context: ExceptionContext) -> None:
    if context.connection is not None and not context.connection.invalidated and not _is_busy(context.connection):
        _leave(context.connection)


def _refuse_commit(connection: Connection) -> None:
    if _is_busy(connection):
        connection.invalidate()
        raise _refusal()


def _give_up(connection: Connection) -> None:
    if not connection.invalidated and _is_busy(connection):
        connection.invalidate()
