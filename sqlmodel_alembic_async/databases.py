"""The Database class: an async engine, its sessions and its transactions."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel

from . import engines, schema_locks
from .computed_once import ComputedOnce
from .driver_errors import committing, translated
from .models import TABLES
from .retries import Retries
from .sessions import AsyncSession as AsyncSession
from .sessions import Closing, Connected, OneTransactionPerTask, ReadOnlySession, StatementSession, flush

Result = TypeVar("Result")


class Database:
    """A database: builds its engine at first use, and opens sessions and transactions on it.

    One Database can serve several event loops and threads. `async with` disposes it at the end.

    Args:
        url: The database URL; by default the environment variable DATABASE_URL, or `./data.db` if that is not set.
        options: Options of engines.create_engine(), for example `echo=True` to log SQL statements.

    """

    def __init__(self, url: str | URL | None = None, **options: Any) -> None:
        self._url = url
        self._options = options
        self._transactions = OneTransactionPerTask()
        self._retries = Retries()

    @ComputedOnce
    def url(self) -> URL:
        """Return the URL with its async driver.

        Raises:
            ValueError: The URL is not a database URL. The message does not quote it.

        """
        return engines.async_url(_settings().database_url.get_secret_value() if self._url is None else self._url)

    @property
    def shown_url(self) -> str:
        """The URL without its password and its options, for messages and logs."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    @ComputedOnce
    def engine(self) -> AsyncEngine:
        """Return the async engine, which is built at the first access and connects when it is first used.

        All methods that need the engine raise these errors, too.

        Raises:
            ModuleNotFoundError: The database's driver is not installed.
            TypeError: An option is unknown, does not apply to this database, or is a custom creator on SQLite.
            ValueError: The URL is not a database URL, names a driver that is unknown or not async, or `synchronous`
                (SQLITE_SYNCHRONOUS), `lock_timeout` (SQLITE_LOCK_TIMEOUT) or `echo` (DATABASE_ECHO) has a value that
                is not allowed.

        """
        settings = _settings()
        defaults = {"echo": settings.database_echo}
        if self.url.get_backend_name() == "sqlite":
            defaults |= {"synchronous": settings.sqlite_synchronous, "lock_timeout": settings.sqlite_lock_timeout}
        return engines.create_engine(self.url, **defaults | self._options)

    @property
    def echo(self) -> engines.Echo:
        """Whether SQL statements are logged: True; "values": with their values, which are personal data; or False.

        A change applies at once, also to open sessions. The first value is DATABASE_ECHO's.
        """
        return engines.get_echo(self.engine.sync_engine)

    @echo.setter
    def echo(self, echo: engines.Echo) -> None:
        engines.set_echo(self.engine.sync_engine, echo)

    @ComputedOnce
    def _writer(self) -> AsyncEngine:
        return engines.writer(self.engine)

    @ComputedOnce
    def _reader(self) -> AsyncEngine:
        return engines.reader(self.engine)

    @ComputedOnce
    def _snapshot(self) -> AsyncEngine:
        return engines.snapshot(self.engine)

    def __repr__(self) -> str:
        return f"Database({self.shown_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.dispose()

    async def dispose(self) -> None:
        """Close the idle connections. An in-memory database is deleted. The Database can be used again."""
        if "engine" in self.__dict__:
            await self.engine.dispose()

    def session(self) -> AsyncSession:
        """Return a plain session, which the caller commits and closes.

        Only this package's functions translate errors. Other statements, and commit(), raise SQLAlchemy's errors.
        """
        return AsyncSession(self.engine)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Open a session in a transaction: commit at the end of the block, or roll back if the block raises.

        On SQLite, transactions wait for each other in a FIFO queue, for at most `lock_timeout` seconds: an option of
        Database, or the environment variable SQLITE_LOCK_TIMEOUT; 60 by default. Errors of SQLAlchemy and of the
        drivers are raised as the errors of this package.

        Raises:
            RuntimeError: This task already has an open transaction() of this database: pass that session as an
                argument. Or the process was forked while its parent had this SQLite file open.
            pydantic.ValidationError: A row that the block added or changed has an invalid value.
            AlreadyExistsError: Another row has the same unique value.
            UserNotFoundError: The owner of a pet does not exist.
            UserHasPetsError: A deleted user still has pets.
            StaleVersionError: Another transaction changed or deleted a row that the block changed.
            ConflictError: A row of another table refers to a deleted row, or a referenced row does not exist.
            InvalidValueError: The database refused a value.
            TransactionConflictError: Deadlock, serialization failure or lock timeout: run_transaction() repeats these.
            DatabaseUnavailableError: No connection could be opened, none became free in time, or it was lost.
            OutcomeUnknownError: The connection was lost during COMMIT.
            StorageError: The storage is full, read-only or corrupt, or the file cannot be opened.
            DatabaseError: The block caught an error of a statement that was not in a savepoint, or a table is missing,
                or the database refused a statement for another reason.
            sqlalchemy.exc.InvalidRequestError: Two tasks use the session at the same time.

        """
        with self._transactions.entered():
            async with Connected(AsyncSession(self._writer, close_resets_only=False)) as session:
                with translated():
                    yield session
                    await flush(session)
                with committing():
                    await session.commit()

    @asynccontextmanager
    async def reading(self, *, snapshot: bool = False) -> AsyncIterator[AsyncSession]:
        """Open a read-only session. It does not block writers, except as `snapshot` describes.

        Without a snapshot, it connects at its first statement. It may be used inside a transaction(), whose uncommitted
        changes it does not see.

        Args:
            snapshot: False (default): each statement sees the rows that are committed when it begins; there is no
                transaction, and so no savepoint and no streamed result. True: all statements see the same snapshot.
                A snapshot of an in-memory SQLite database makes writers wait.

        Raises:
            StorageError: The block writes; or the storage is corrupt, or the file cannot be opened.
            DatabaseError: The block uses a savepoint or a streamed result without a snapshot; or a table is missing, or
                the database refused a statement.
            DatabaseUnavailableError: No connection could be opened, none became free in time, or it was lost.
            TransactionConflictError: A lock was not released in time.
            RuntimeError: The process was forked while its parent had this SQLite file open.
            sqlalchemy.exc.InvalidRequestError: Two tasks use the session at the same time.

        """
        options: dict[str, Any] = {"sync_session_class": ReadOnlySession, "close_resets_only": False}
        if snapshot:
            opened: Closing = Connected(AsyncSession(self._snapshot, **options))
        elif self._reader.pool is self.engine.pool:  # The application's own pool may have one connection for all.
            opened = Connected(StatementSession(self._reader, **options))
        else:
            opened = Closing(StatementSession(self._reader, **options))
        async with opened as session:
            with translated():
                yield session
                await flush(session)

    async def run_transaction(self, work: Callable[[AsyncSession], Awaitable[Result]], *, attempts: int = 10) -> Result:
        """Run `work(session)` in a transaction, commit, and return its result; repeat it if transactions conflict.

        `work` may run several times, each time in a new session and a new transaction. So it must have no other side
        effects than its changes in this session, and it must not use rows of an earlier attempt.

        Args:
            work: A coroutine function that takes the session.
            attempts: How often `work` may run, at least 1. Random waits separate the attempts.

        Raises:
            ValueError: `attempts` is less than 1.
            TransactionConflictError: The last attempt conflicted, too.
            StaleVersionError: The last attempt found a stale row, too; or `work` passed an `expected_version` that is
                stale, which is not repeated.
            RuntimeError: As in transaction(). Its other errors are raised without another attempt.

        """
        if attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {attempts}")

        async def attempt() -> Result:
            async with self.transaction() as session:
                return await work(session)

        return await self._retries.run(attempt, attempts)

    async def create_tables(self) -> None:
        """Create the missing tables, for tests and prototypes; use migrations.upgrade() everywhere else.

        Raises:
            RuntimeError: This task has an open transaction() of this database. Or the process was forked while its
                parent had this SQLite file open.
            DatabaseError: A different table has the name of one of this package's tables, the URL names no database, or
                the user has no right to create tables. Nothing is changed.
            TransactionConflictError: Another process is changing the tables, or another transaction holds a lock on
                them, and did not end in time.
            DatabaseUnavailableError: No connection could be opened, or it was lost.
            StorageError: The storage is full or read-only, or the file cannot be opened.

        """
        with self._transactions.entered(), translated(OSError):
            async with self._writer.connect() as connection:
                tables = [SQLModel.metadata.tables[name] for name in TABLES]
                await connection.run_sync(schema_locks.create_alone, tables)


def _settings() -> Any:
    from .settings import Settings

    return Settings()


database = Database()


async def get_session() -> AsyncIterator[AsyncSession]:
    """Yield a session of the default database in a transaction(): a dependency for web frameworks.

    It commits when the framework resumes it, and rolls back if the framework throws an error into it or closes it. So
    an `async for` loop that is left by break or return rolls back.

    In FastAPI, use `Depends(get_session, scope="function")` (FastAPI >= 0.121): it commits before the response. Without
    the scope, FastAPI >= 0.118 commits after it has sent the response, so that the client is not told of a commit that
    fails.

    Raises:
        RuntimeError: As in transaction(), whose other errors are raised, too.

    """
    async with database.transaction() as session:
        yield session


if TYPE_CHECKING:
    engine: AsyncEngine


def __getattr__(name: str) -> AsyncEngine:
    # Lazy: a host application's DATABASE_URL may name a database that this package does not support.
    if name == "engine":
        return database.engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
