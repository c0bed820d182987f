"""Databases: the async engine, and its transactions."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel

from . import engines, schema
from .driver_errors import committing, translated
from .models import TABLES
from .retries import Retries
from .sessions import AsyncSession as AsyncSession  # a name of this room, too
from .sessions import Connected, ReadOnlySession, StatementSession, flush

Result = TypeVar("Result")


class _ComputedOnce(Generic[Result]):
    """functools.cached_property for several threads, which all get the same value.

    That of Python 3.11 holds a lock, which stays locked in a process that another thread forks meanwhile.
    """

    def __init__(self, compute: Callable[[Any], Result]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Result: ...
    def __get__(self, instance: object | None, owner: type) -> Self | Result:
        if instance is None:
            return self
        value: Result = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value


class Database:
    """One database. The URL is the environment's DATABASE_URL unless given; `options` are engines.create_engine()'s."""

    def __init__(self, url: str | URL | None = None, **options: Any) -> None:
        self._url = url
        self._options = options
        self._in_transaction: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._retries = Retries()

    @_ComputedOnce
    def url(self) -> URL:
        """Return the URL with its async driver."""
        return engines.async_url(_settings().database_url.get_secret_value() if self._url is None else self._url)

    @property
    def shown_url(self) -> str:
        """The URL as it may be shown: without its password and its options."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    @_ComputedOnce
    def engine(self) -> AsyncEngine:
        """Return the async engine, built when it is first asked for; connections are made when they are needed."""
        options = self._options
        if self.url.get_backend_name() == "sqlite":
            options = {"synchronous": _settings().sqlite_synchronous} | options
        return engines.create_engine(self.url, **options)

    @_ComputedOnce
    def _writer(self) -> AsyncEngine:
        return engines.writer(self.engine)

    @_ComputedOnce
    def _reader(self) -> AsyncEngine:
        return engines.reader(self.engine)

    @_ComputedOnce
    def _snapshot(self) -> AsyncEngine:
        return engines.snapshot(self.engine)

    def __repr__(self) -> str:
        return f"Database({self.shown_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.dispose()

    async def dispose(self) -> None:
        """Close the idle connections; a database in memory is gone then."""
        if "engine" in self.__dict__:
            await self.engine.dispose()

    def session(self) -> AsyncSession:
        """Return a plain session: the caller commits and closes it."""
        return AsyncSession(self.engine)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Commit at the end, or roll back on any error. Not to be nested in one task: pass the session down."""
        with self._only_transaction_of_this_task():
            async with Connected(AsyncSession(self._writer, close_resets_only=False)) as session:
                with translated():
                    yield session
                    await flush(session)
                with committing():
                    await session.commit()

    @asynccontextmanager
    async def reading(self, *, snapshot: bool = False) -> AsyncIterator[AsyncSession]:
        """Give a session that can only read, and blocks no writer; a write raises StorageError.

        Each statement sees what is committed when it begins; with `snapshot` all see one moment.
        """
        bind = self._snapshot if snapshot else self._reader
        session_class = AsyncSession if snapshot else StatementSession
        session = session_class(bind, sync_session_class=ReadOnlySession, close_resets_only=False)
        async with Connected(session):
            with translated():
                yield session
                await flush(session)

    async def run_transaction(self, work: Callable[[AsyncSession], Awaitable[Result]], *, attempts: int = 10) -> Result:
        """Return `await work(session)`, committed. Tried again, in a fresh session, where transactions conflict."""
        if attempts < 1:
            raise ValueError("attempts must be at least 1")

        async def attempt() -> Result:
            async with self.transaction() as session:
                return await work(session)

        return await self._retries.run(attempt, attempts)

    async def create_tables(self) -> None:
        """Create the missing tables, for tests and prototypes: everything else migrates.

        Raises:
            DatabaseError: A table that is not this package's has the name of one of its tables.
            RuntimeError: This task is in a transaction of this database.

        """
        with self._only_transaction_of_this_task(), translated(OSError):
            async with self._writer.connect() as connection:
                await connection.run_sync(_create_tables)

    @contextmanager
    def _only_transaction_of_this_task(self) -> Iterator[None]:
        task = cast("asyncio.Task[Any]", asyncio.current_task())  # A coroutine runs in a task.
        if task in self._in_transaction:
            raise RuntimeError("this task is in a transaction of this database already: pass its session down")
        self._in_transaction.add(task)
        try:
            yield
        finally:
            self._in_transaction.discard(task)


def _create_tables(connection: sa.Connection) -> None:
    with schema.alone(connection):
        schema.create(connection, [SQLModel.metadata.tables[name] for name in TABLES])


def _settings() -> Any:
    # Imported when they are asked for: to import the package takes little time.
    from .settings import Settings

    return Settings()


database = Database()


async def get_session() -> AsyncIterator[AsyncSession]:
    """Yield a session of the default database for one request: committed at its end, rolled back on an error.

    For frameworks, and for `async for` loops that run to their end: one that is left by break or return rolls back.
    """
    async with database.transaction() as session:
        yield session


if TYPE_CHECKING:
    engine: AsyncEngine


def __getattr__(name: str) -> AsyncEngine:
    # Not at import: a host application's own DATABASE_URL may be none of ours.
    if name == "engine":
        return database.engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
