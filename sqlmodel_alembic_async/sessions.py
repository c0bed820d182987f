"""Sessions: what SQLModel's become here, and how they are connected, closed and kept from writing."""

import asyncio
import time
from typing import Any, NoReturn

from sqlalchemy import event
from sqlalchemy.exc import IllegalStateChangeError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSessionTransaction
from sqlalchemy.orm import ORMExecuteState, SessionTransaction
from sqlalchemy.util import greenlet_spawn
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession as _AsyncSession

from .driver_errors import translated
from .engines.waiting import until_done
from .errors import DatabaseError, StorageError
from .undo import undo_everything

_PATIENCE = 1.0  # Seconds that closing waits for another task to leave the session alone, and between two looks.
_MOMENT = 0.01

_NEEDS_TRANSACTION = "a savepoint or a streamed result needs a transaction: reading(snapshot=True)"
_READS_ONLY = "this session only reads: write in a transaction()"


class AsyncSession(_AsyncSession):
    """SQLModel's AsyncSession, whose rows stay readable after a commit."""

    def __init__(self, bind: Any = None, *, expire_on_commit: bool = False, **options: Any) -> None:
        super().__init__(bind, expire_on_commit=expire_on_commit, **options)

    def begin_nested(self) -> AsyncSessionTransaction:
        """Return a savepoint; its end undoes in memory what it rolls back, inner savepoints included."""
        return _Savepoint(self, nested=True)

    async def close(self) -> None:
        """Close the session; what was not committed is undone in its rows, too."""
        try:
            undo_everything(self.sync_session)
        finally:
            await super().close()

    async def reset(self) -> None:
        """Close the session, which may be used again; what was not committed is undone in its rows, too."""
        try:
            undo_everything(self.sync_session)
        finally:
            await super().reset()

    async def invalidate(self) -> None:
        """Close the session and its connections; what was not committed is undone in its rows, too."""
        try:
            undo_everything(self.sync_session)
        finally:
            await super().invalidate()

    async def __aexit__(self, *error: object) -> None:
        """Close the session; where another task is still at work with it, as soon as that has ended."""
        closing = asyncio.ensure_future(self._close_in_the_end())
        await asyncio.shield(closing)

    async def _close_in_the_end(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return await self.close()
            except InvalidRequestError:
                if time.monotonic() > deadline:
                    return await self.invalidate()
                await asyncio.sleep(_MOMENT)


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
    while (inner := savepoint.session.get_nested_transaction()) not in (None, savepoint):
        inner.rollback()


async def flush(session: AsyncSession) -> None:
    """Flush where there is something to flush."""
    if session.new or session.dirty or session.deleted:
        await session.flush()


class Connected:
    """Connects a session, and closes it at the end, whatever has become of the connection by then."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def __aenter__(self) -> AsyncSession:
        try:
            with translated(OSError):
                await self._session.connection()
        except BaseException:
            await self.__aexit__()
            raise
        return self._session

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._session.close()
        except IllegalStateChangeError:
            await self._session.__aexit__()
        except BaseException as failure:
            # The server rolls back what lost its connection: a ROLLBACK that does not get through has nothing to say.
            await until_done(asyncio.create_task(self._session.invalidate()))
            if not isinstance(failure, SQLAlchemyError | OSError):
                raise


class StatementSession(AsyncSession):
    """Has no transaction around its statements, and so nothing that needs one, on every engine alike."""

    def begin_nested(self) -> NoReturn:
        """Refuse a savepoint."""
        raise DatabaseError(_NEEDS_TRANSACTION)

    async def stream(self, *args: Any, **options: Any) -> NoReturn:
        """Refuse a streamed result."""
        raise DatabaseError(_NEEDS_TRANSACTION)

    async def stream_scalars(self, *args: Any, **options: Any) -> NoReturn:
        """Refuse a streamed result."""
        raise DatabaseError(_NEEDS_TRANSACTION)


class ReadOnlySession(Session):
    """Refuses to write, before any SQL and on every engine alike."""


@event.listens_for(ReadOnlySession, "before_flush")
def _refuse_flush(session: Session, *args: object) -> None:
    if session.new or session.deleted or any(map(session.is_modified, session.dirty)):
        raise StorageError(_READS_ONLY)


@event.listens_for(ReadOnlySession, "do_orm_execute")
def _refuse_statement(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        raise StorageError(_READS_ONLY)
