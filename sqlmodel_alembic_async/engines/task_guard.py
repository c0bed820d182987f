"""Refuse concurrent use of one connection by two tasks."""

import asyncio

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import InvalidRequestError

from .connection_info import info_of

_ACTIVE_TASK = "sqlmodel_alembic_async_active_task"


def refuse_concurrent_tasks(engine: Engine) -> None:
    """Make a statement or a COMMIT raise InvalidRequestError while another task's statement is running.

    COMMIT and ROLLBACK also close the connection, so that no later statement of that task runs in another transaction.
    """
    event.listen(engine, "before_cursor_execute", _mark_busy)
    event.listen(engine, "after_cursor_execute", _mark_idle)
    event.listen(engine, "handle_error", _mark_idle_after_error)
    event.listen(engine, "commit", _refuse_commit_while_busy)
    event.listen(engine, "rollback", _close_while_busy)


def _is_busy(connection: Connection) -> bool:
    task = info_of(connection).get(_ACTIVE_TASK)
    return task is not None and task is not asyncio.current_task() and not task.done()


def _concurrent_use_error() -> InvalidRequestError:
    return InvalidRequestError("another task is using this session: use one session per task")


def _mark_busy(connection: Connection, *statement: object) -> None:
    if _is_busy(connection):
        raise _concurrent_use_error()
    connection.info[_ACTIVE_TASK] = asyncio.current_task()


def _mark_idle(connection: Connection, *statement: object) -> None:
    info_of(connection)[_ACTIVE_TASK] = None


def _mark_idle_after_error(context: ExceptionContext) -> None:
    if context.connection is not None and not _is_busy(context.connection):
        _mark_idle(context.connection)


def _refuse_commit_while_busy(connection: Connection) -> None:
    if _is_busy(connection):
        connection.invalidate()
        raise _concurrent_use_error()


def _close_while_busy(connection: Connection) -> None:
    if _is_busy(connection):
        connection.invalidate()
