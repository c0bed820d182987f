"""Executes a statement: pending changes are flushed first, and errors are translated."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from ...driver_errors import cause_of, translated
from ...errors import DatabaseError
from ...models import Row

Scalar = TypeVar("Scalar")

# A row that the session holds already is read anew.
AS_STORED = {"populate_existing": True}


@asynccontextmanager
async def statement(session: AsyncSession) -> AsyncIterator[None]:
    """Translate a failure, and end the transaction it happened in, as SQLAlchemy does when a flush fails."""
    with translated(OSError):
        try:
            if session.new or session.dirty or session.deleted:
                await session.flush()  # Also where the caller turned autoflush off: what is read here overwrites rows.
            yield
        except PendingRollbackError:
            raise
        except InvalidRequestError as error:
            raise DatabaseError("the session is closed, or another task is using it") from cause_of(error)
        except (SQLAlchemyError, OSError) as error:
            # An end that fails too must not hide what went wrong first.
            with suppress(SQLAlchemyError, OSError):
                await session.run_sync(_end_transaction, cause_of(error))
            raise


def _end_transaction(session: Session, cause: Exception) -> None:
    # PostgreSQL refuses all that follows a failed statement, and turns the COMMIT into a silent ROLLBACK. So the
    # transaction, or the savepoint around the statement, ends here on every engine, and a commit() says so.
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is not None and session.is_active:
        failed = SessionTransaction(session, SessionTransactionOrigin.SUBTRANSACTION, transaction)
        try:
            raise cause
        except type(cause):
            failed.rollback(_capture_exception=True)  # The exception being handled is the reason it gives later.


def dialect_of(session: AsyncSession, model: type[Row]) -> sa.Dialect:
    """Return the dialect that this session speaks for this table."""
    return session.get_bind(model).dialect


async def fetch_all(
    session: AsyncSession, query: SelectOfScalar[Scalar], values: dict[str, Any] | None = None
) -> list[Scalar]:
    """Return what the database holds now, also for rows the session knows already."""
    async with statement(session):
        # An empty session has nothing that would have to be read anew.
        options = AS_STORED if session.sync_session.identity_map else {}
        return list(await session.exec(query, params=values, execution_options=options))


async def fetch_one(
    session: AsyncSession, query: SelectOfScalar[Scalar], values: dict[str, Any] | None = None
) -> Scalar | None:
    """Return the first row of the query as the database holds it now, or None."""
    return next(iter(await fetch_all(session, query, values)), None)


def as_written(session: AsyncSession, model: type[Row], query: SelectOfScalar[Row]) -> SelectOfScalar[Row]:
    """Let a query see what a statement that writes sees."""
    # MariaDB and MySQL write the newest row. A query reads the transaction's snapshot, unless it locks.
    writes_newest = dialect_of(session, model).name in ("mysql", "mariadb")
    return query.with_for_update(read=True) if writes_newest else query
