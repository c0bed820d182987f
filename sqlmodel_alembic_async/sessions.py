"""Session classes, and how a session gets its connection and is closed."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, cast
from weakref import WeakSet

from sqlalchemy import Connection, Engine, Select, event
from sqlalchemy.exc import IllegalStateChangeError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSessionTransaction
from sqlalchemy.orm import ORMExecuteState, SessionTransaction
from sqlalchemy.util import greenlet_spawn
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession as _AsyncSession

from . import loading
from .driver_errors import translated
from .engines.waiting import until_done
from .errors import DatabaseError, StorageError
from .models import Row
from .undo import undo_everything

_CLOSE_TIMEOUT = 1.0
_CLOSE_RETRY_INTERVAL = 0.01

_IS_IN_USE = "another task is using this session: use one session per task"
_NEEDS_TRANSACTION = "savepoints and streamed results need a transaction: use reading(snapshot=True) or transaction()"
_HAS_NO_TRANSACTION = "reading() has no transaction: use reading(snapshot=True) or transaction()"
_IS_READ_ONLY = "the session is read-only: use transaction() to write"


class AsyncSession(_AsyncSession):
    """SQLModel's AsyncSession, with rows that stay readable after a commit.

    A rollback to a savepoint gives the rows of this package their earlier values. rollback() of the whole transaction
    expires all rows: refresh() reads one again.

    Args:
        bind: The async engine or connection.
        expire_on_commit: False (default): a commit leaves loaded rows as they are, without a new read.
        options: Other options of SQLModel's AsyncSession.

    """

    def __init__(self, bind: Any = None, *, expire_on_commit: bool = False, **options: Any) -> None:
        super().__init__(bind, expire_on_commit=expire_on_commit, **options)

    def begin_nested(self) -> AsyncSessionTransaction:
        """Return a savepoint to use with `async with`: it is rolled back if the block raises, and released otherwise.

        A rollback undoes the changes in memory, too, those of open inner savepoints included.
        """
        return _Savepoint(self, nested=True)

    async def close(self) -> None:
        """Close the session, roll back, and restore its rows to their committed values.

        Raises:
            sqlalchemy.exc.IllegalStateChangeError: Another task is using the session.

        """
        try:
            undo_everything(self.sync_session)
        finally:
            if self.sync_session.get_transaction() is None:
                self.sync_session.close()  # It has no connection, so nothing waits.
            else:
                await super().close()

    async def reset(self) -> None:
        """Close the session, which may be used again; what was not committed is undone in its rows, too.

        Raises:
            sqlalchemy.exc.IllegalStateChangeError: Another task is using the session.

        """
        try:
            undo_everything(self.sync_session)
        finally:
            await super().reset()

    async def invalidate(self) -> None:
        """Close the session and its connections; what was not committed is undone in its rows, too.

        Raises:
            sqlalchemy.exc.IllegalStateChangeError: Another task is using the session.

        """
        try:
            undo_everything(self.sync_session)
        finally:
            await super().invalidate()

    async def __aexit__(self, *error: object) -> None:
        """Close the session; if another task is using it, wait at most one second for that task.

        Raises:
            sqlalchemy.exc.IllegalStateChangeError: Another task is still using the session after that time.

        """
        closing = asyncio.ensure_future(self._close_with_retries())
        await asyncio.shield(closing)

    async def _close_with_retries(self) -> None:
        deadline = time.monotonic() + _CLOSE_TIMEOUT
        while True:
            try:
                return await self.close()
            except InvalidRequestError:
                if time.monotonic() > deadline:
                    return await self.invalidate()
                await asyncio.sleep(_CLOSE_RETRY_INTERVAL)


class _Savepoint(AsyncSessionTransaction):
    async def rollback(self) -> None:
        """Roll back to this savepoint, and to those inside it first: SQLAlchemy would forget what they changed."""
        await greenlet_spawn(_roll_back_inner, self._sync_transaction())
        await super().rollback()

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None:
            await greenlet_spawn(_roll_back_inner, self._sync_transaction())
        await super().__aexit__(kind, error, traceback)


def _roll_back_inner(savepoint: SessionTransaction) -> None:
    # If this savepoint has ended, the innermost one is outside of it.
    while savepoint.is_active and (inner := savepoint.session.get_nested_transaction()) not in (None, savepoint):
        inner.rollback()


async def flush(session: AsyncSession) -> None:
    """Flush the session if it has pending changes."""
    if session.new or session.dirty or session.deleted:
        await session.flush()


class Closing:
    """A context manager that closes a session, even if its connection was lost."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def __aenter__(self) -> AsyncSession:
        return self._session

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._session.close()
        except IllegalStateChangeError:
            await self._session.__aexit__()
        except BaseException as failure:
            # The server rolls back a transaction that loses its connection, so a failed ROLLBACK is no error.
            await until_done(asyncio.create_task(self._session.invalidate()))
            if not isinstance(failure, SQLAlchemyError | OSError):
                raise


class Connected(Closing):
    """A context manager that connects a session, and closes it."""

    async def __aenter__(self) -> AsyncSession:
        try:
            with translated(OSError):
                await self._session.connection()
        except BaseException:
            await self.__aexit__()
            raise
        return self._session


class OneTransactionPerTask:
    """Refuses a second transaction in one task. On SQLite, the second one would wait forever for the first one."""

    def __init__(self) -> None:
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Register this task for the block; raise RuntimeError if it is registered already."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())  # A coroutine runs in a task.
        if task in self._tasks:
            raise RuntimeError(
                "this task already has an open transaction of this database: pass its session as an argument"
            )
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)


class StatementSession(AsyncSession):
    """A session in autocommit mode: it refuses what needs a transaction, in the same way on each database."""

    _is_loading = False
    _loading: Connection | None = None
    _is_closed = False

    async def load(self, model: type[Row], query: Any, parameters: dict[str, Any]) -> list[Row] | None:
        """Return the rows that a query of the model selects, or None if only exec() can load them.

        It takes half the time of exec(), and a connection for this statement only.

        Raises:
            sqlalchemy.exc.InvalidRequestError: Another task is using the session.

        """
        self.refuse_while_loading()
        session = self.sync_session
        if self._is_closed or session.in_transaction() or not loading.can_load(session, model):
            return None
        self._is_loading = True
        try:
            # Connecting and loading share a greenlet: each one costs a good part of what a fast server needs.
            return await greenlet_spawn(self._load, model, query, parameters)
        finally:
            self._is_loading = False
            self._loading = None

    def _load(self, model: type[Row], *query: Any) -> list[Row]:
        engine = cast("Engine", self.sync_session.get_bind(model))
        with engine.connect() as connection:
            if self._is_closed:
                raise InvalidRequestError("the session was closed")
            self._loading = connection
            return loading.load(self.sync_session, connection, model, *query)

    def refuse_while_loading(self) -> None:
        """Raise InvalidRequestError if another task is loading."""
        if self._is_loading:
            raise InvalidRequestError(_IS_IN_USE)

    async def connection(self, *args: Any, **options: Any) -> AsyncConnection:
        """Return the connection of the statements that load() does not execute. A driver's error is translated."""
        with translated(OSError):
            return await super().connection(*args, **options)

    async def close(self) -> None:
        """Close the session.

        Raises:
            sqlalchemy.exc.IllegalStateChangeError: Another task is using the session.

        """
        if self._is_loading:
            raise IllegalStateChangeError(_IS_IN_USE)
        self._is_closed = True
        await super().close()

    async def invalidate(self) -> None:
        """Close the session and its connections, even while another task is loading.

        Raises:
            sqlalchemy.exc.IllegalStateChangeError: Another task is using the session otherwise.

        """
        self._is_closed = True
        if self._loading is not None:
            await greenlet_spawn(self._loading.invalidate)
        await super().invalidate()

    def begin(self) -> NoReturn:
        """Refuse a transaction: raise DatabaseError."""
        raise DatabaseError(_HAS_NO_TRANSACTION)

    def begin_nested(self) -> NoReturn:
        """Refuse a savepoint: raise DatabaseError."""
        raise DatabaseError(_NEEDS_TRANSACTION)

    async def stream(self, *args: Any, **options: Any) -> NoReturn:
        """Refuse a streamed result: raise DatabaseError."""
        raise DatabaseError(_NEEDS_TRANSACTION)

    async def stream_scalars(self, *args: Any, **options: Any) -> NoReturn:
        """Refuse a streamed result: raise DatabaseError."""
        raise DatabaseError(_NEEDS_TRANSACTION)


def _connecting(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def connected(self: StatementSession, *args: Any, **options: Any) -> Any:
        self.refuse_while_loading()
        if not self.in_transaction():
            await self.connection()
        return await method(self, *args, **options)

    return connected


for _name in ("exec", "execute", "scalars", "scalar", "get", "get_one", "refresh", "merge", "run_sync"):
    setattr(StatementSession, _name, _connecting(getattr(AsyncSession, _name)))


class ReadOnlySession(Session):
    """A session that raises StorageError for a write or a SELECT … FOR UPDATE, before it sends any SQL."""

    def refuse_writes(self) -> NoReturn:
        """Raise StorageError, for a service that would write."""
        raise StorageError(_IS_READ_ONLY)


@event.listens_for(ReadOnlySession, "before_flush")
def _refuse_flush(session: ReadOnlySession, *args: object) -> None:
    if session.new or session.deleted or any(map(session.is_modified, session.dirty)):
        session.refuse_writes()


@event.listens_for(ReadOnlySession, "do_orm_execute")
def _refuse_statement(state: ORMExecuteState) -> None:
    # FOR SHARE is not refused: on MariaDB and MySQL, a service reads the newest version of a row with it.
    lock = state.statement._for_update_arg if isinstance(state.statement, Select) else None
    if state.is_insert or state.is_update or state.is_delete or (lock is not None and not lock.read):
        raise StorageError(_IS_READ_ONLY)
