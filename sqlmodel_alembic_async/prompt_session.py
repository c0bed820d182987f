"""IPython's open session: its transaction ends after a cell that only read, and is undone after a cell that failed."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import SessionTransactionOrigin
from sqlalchemy.util import await_
from sqlmodel import Session

from .prompt_changes import Changes
from .sessions import AsyncSession

_WAITING = (
    *("exec", "execute", "scalars", "scalar", "get", "refresh", "merge", "flush", "connection", "begin_nested"),
    *("commit", "rollback", "close", "reset", "invalidate"),
)


class _WaitingSession(Session):
    """A session whose methods wait until the transaction of the cell before has ended.

    In a notebook, the next cell may start earlier: IPython's events cannot await.
    """

    ending: asyncio.Task[None] | None = None

    def is_ending(self) -> bool:
        """Return whether the transaction is being ended."""
        return self.ending is not None and not self.ending.done()


def _waiting(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wait(self: _WaitingSession, *args: Any, **options: Any) -> Any:
        if self.ending is not None and self.is_ending() and self.ending is not asyncio.current_task():
            await_(asyncio.wait([self.ending]))
        return method(self, *args, **options)

    return wait


for _name in _WAITING:
    setattr(_WaitingSession, _name, _waiting(getattr(Session, _name)))


class PromptSession:
    """Keeps the transaction of IPython's open session as short as the work in it.

    A transaction that the user began by begin() or begin_nested() is the user's, and so is one that another task uses.

    Attributes:
        session: The session.
        closing: The task that closes the session in a running event loop.

    """

    closing: asyncio.Task[None]

    def __init__(self, bind: Any) -> None:
        self.session = AsyncSession(bind, sync_session_class=_WaitingSession)
        self._sync_session = cast("_WaitingSession", self.session.sync_session)
        self._changes = Changes(self._sync_session)
        self._count_before = 0
        self._told_count = 0
        self._earlier_tasks: set[asyncio.Task[Any]] = set()

    def count(self) -> int:
        """Return the number of row changes that are not committed."""
        return self._changes.count()

    def before_cell(self, *info: object) -> None:
        """Note what is there before a cell runs."""
        self._count_before = self.count()
        self._earlier_tasks = set(self._changes.tasks)

    def after_cell(self, result: Any) -> None:
        """End or undo the transaction, or tell how many row changes wait for a commit.

        In a running event loop, which is a notebook's, a task of that loop ends it.
        """
        # A notebook has no result of an interrupted cell.
        error = KeyboardInterrupt() if result is None else result.error_in_exec or result.error_before_exec
        loop = event_loop()
        if isinstance(error, KeyboardInterrupt) and not loop.is_running():
            loop.run_until_complete(self._cancel_tasks())
        if (end := self._plan(error)) is None:
            return
        ending = self._sync_session.ending = loop.create_task(self._end(end))
        if not loop.is_running():
            try:
                loop.run_until_complete(ending)
            except KeyboardInterrupt:
                ending.cancel()
                loop.run_until_complete(asyncio.wait([ending]))

    async def _cancel_tasks(self) -> None:
        # In a terminal, IPython leaves the task of an interrupted cell behind, which would go on during the next cell.
        interrupted = self._changes.tasks - self._earlier_tasks
        for task in interrupted:
            task.cancel()
        await asyncio.gather(*interrupted, return_exceptions=True)

    def _plan(self, error: BaseException | None) -> Callable[[], Awaitable[None]] | None:
        """Return what ends the transaction, None to leave it open; tell the user what is done, or has to be done."""
        count, changes, session = self.count(), self._changes, self.session
        transaction = self._sync_session.get_transaction()
        if transaction is None or self._sync_session.is_ending() or self._is_used_by_another_task():
            self._tell_waiting(count)
            return None
        if transaction.origin is not SessionTransactionOrigin.AUTOBEGIN or session.in_nested_transaction():
            self._tell_waiting(count)
            return None
        if changes.have_failed() or (error is not None and count != self._count_before):
            undone = f", and {row_changes(count, 'is', 'are')} undone" if count else ""
            failed = "A statement" if error is None else "The cell"
            print(f"{failed} failed: the session is rolled back{undone}.")  # noqa: T201  # for the user
            return session.rollback
        if count or (changes.takes_locks and error is None):
            self._tell_waiting(count, again=error is not None)
            return None
        return session.commit

    def _is_used_by_another_task(self) -> bool:
        current = asyncio.current_task(event_loop())
        return any(task is not current and not task.done() for task in self._changes.tasks)

    def _tell_waiting(self, count: int, *, again: bool = False) -> None:
        if count and (again or count != self._told_count):
            print(f"{row_changes(count, 'waits', 'wait')} for `await session.commit()`.")  # noqa: T201  # for the user
        self._told_count = count

    async def _end(self, end: Callable[[], Awaitable[None]]) -> None:
        if end == self.session.commit and self.count():
            return  # The next cell of a notebook has already added or edited a row.
        self._told_count = 0
        try:
            await end()
        except (SQLAlchemyError, OSError):
            # The connection is lost, or the database has already ended the transaction.
            with suppress(SQLAlchemyError, OSError):
                await self.session.invalidate()


def event_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of IPython's cells: connections must be closed in the event loop that opened them."""
    from IPython.core.async_helpers import get_asyncio_loop

    loop: asyncio.AbstractEventLoop = get_asyncio_loop()  # type: ignore[no-untyped-call]  # IPython has no types
    return loop


def row_changes(count: int, singular: str, plural: str) -> str:
    """Return a number of row changes in words, with a verb."""
    return f"1 row change {singular}" if count == 1 else f"{count} row changes {plural}"
