"""Execute a statement: flush pending changes first, and translate errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin, configure_mappers
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from ...driver_errors import cause_of, translated
from ...errors import DatabaseError
from ...models import Row

Scalar = TypeVar("Scalar")

POPULATE_EXISTING = {"populate_existing": True}


@asynccontextmanager
async def statement(session: AsyncSession) -> AsyncIterator[None]:
    """Flush, and run the block; translate its error, and end the transaction as after a failed flush."""
    with translated(OSError):
        try:
            if session.new or session.dirty or session.deleted:
                await session.flush()  # Even without autoflush: a query here overwrites pending changes.
            yield
        except PendingRollbackError:
            raise
        except InvalidRequestError as error:
            configure_mappers()  # If the application's models are wrong, raise the error that says so.
            raise DatabaseError(
                "the session is closed or in use by another task: give each task an open session of its own"
            ) from cause_of(error)
        except (SQLAlchemyError, OSError) as error:
            if session.in_transaction():
                with suppress(SQLAlchemyError, OSError):
                    await session.run_sync(_end_transaction, cause_of(error))
            raise


def _end_transaction(session: Session, cause: Exception) -> None:
    """End the innermost savepoint or transaction on every engine, so that a later commit() raises an error.

    PostgreSQL refuses every statement after a failed one, and turns COMMIT into a silent ROLLBACK.
    """
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is not None and session.is_active:
        failed = SessionTransaction(session, SessionTransactionOrigin.SUBTRANSACTION, transaction)
        try:
            raise cause
        except type(cause):
            failed.rollback(_capture_exception=True)  # SQLAlchemy stores the handled exception as the cause.


def is_reader(session: AsyncSession) -> bool:
    """Return whether the session is read-only, as that of reading() is."""
    return hasattr(session.sync_session, "refuse_writes")


def refuse_reader(session: AsyncSession) -> None:
    """Raise StorageError if the session is read-only, as that of reading() is."""
    if is_reader(session):
        session.sync_session.refuse_writes()  # type: ignore[attr-defined]  # of ReadOnlySession


def dialect_of(session: AsyncSession, model: type[Row]) -> sa.Dialect:
    """Return the dialect of the engine to which this session binds the table."""
    return session.get_bind(model).dialect


async def fetch_all(
    session: AsyncSession, query: SelectOfScalar[Scalar], values: dict[str, Any] | None = None
) -> list[Scalar]:
    """Return all results; refresh the rows that the session holds already."""
    async with statement(session):
        # Without the option, a query of an empty session is faster.
        options = POPULATE_EXISTING if session.sync_session.identity_map else {}
        return list(await session.exec(query, params=values, execution_options=options))


async def load_all(session: AsyncSession, model: type[Row], query: Any, values: dict[str, Any]) -> list[Row] | None:
    """Return the rows that a query of the model selects; None if the session cannot load them without the ORM."""
    load = getattr(session, "load", None)  # Of StatementSession.
    if load is None:
        return None
    async with statement(session):
        rows: list[Row] | None = await load(model, query, values)
        return rows


async def fetch_one(
    session: AsyncSession, query: SelectOfScalar[Scalar], values: dict[str, Any] | None = None
) -> Scalar | None:
    """Return the first result or None; refresh it if the session holds it already."""
    return next(iter(await fetch_all(session, query, values)), None)


def as_written(session: AsyncSession, model: type[Row], query: SelectOfScalar[Row]) -> SelectOfScalar[Row]:
    """Return a query that reads the same row versions as an UPDATE or DELETE.

    In MariaDB and MySQL, an UPDATE sees the newest version of a row. A SELECT without a lock reads a snapshot.
    """
    writes_newest = dialect_of(session, model).name in ("mysql", "mariadb")
    return query.with_for_update(read=True) if writes_newest else query
