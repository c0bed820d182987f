"""The few statements that users and pets share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin, make_transient_to_detached
from sqlalchemy.orm.util import identity_key
from sqlalchemy.sql.base import ExecutableOption
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from ...columns import UTCDateTime
from ...driver_errors import cause_of, translated
from ...errors import DatabaseError, StaleVersionError
from ...fields import is_id
from ...models import Pet, PetCreate, PetUpdate, User, UserCreate, UserUpdate
from ...undo import REMEMBERED, remember
from . import prebuilt
from .column_values import changed_values, new_values

Row = TypeVar("Row", User, Pet)
Scalar = TypeVar("Scalar")

OnSimilar = Literal["allow", "error"]  # What create_user() and create_pet() do about rows that look like the new one.

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


async def fetch_by_id(session: AsyncSession, model: type[Row], row_id: int, *options: ExecutableOption) -> Row | None:
    """Return one row, or None."""
    if not is_id(row_id):
        return None
    query = prebuilt.selection(model)
    return await fetch_one(session, query.options(*options) if options else query, {"row_id": row_id})


async def fetch_as_written(session: AsyncSession, model: type[Row], row_id: int) -> Row | None:
    """Return one row as a statement that writes sees it, or None."""
    if not is_id(row_id):
        return None
    return await fetch_one(session, as_written(session, model, prebuilt.selection(model)), {"row_id": row_id})


def as_written(session: AsyncSession, model: type[Row], query: SelectOfScalar[Row]) -> SelectOfScalar[Row]:
    """Let a query see what a statement that writes sees."""
    # MariaDB and MySQL write the newest row. A query reads the transaction's snapshot, unless it locks.
    writes_newest = dialect_of(session, model).name in ("mysql", "mariadb")
    return query.with_for_update(read=True) if writes_newest else query


async def count(session: AsyncSession, model: type[Row], terms: prebuilt.Terms) -> int:
    """Return the number of rows."""
    return (await fetch_all(session, prebuilt.count(model, frozenset(terms)), prebuilt.values(terms)))[0]


async def insert(session: AsyncSession, model: type[Row], shape: UserCreate | PetCreate) -> Row:
    """Insert one row, and return it."""
    values = new_values(shape)
    async with statement(session):
        insertion, parameters = prebuilt.insertion(model), prebuilt.named(values)
        result: Any = await session.exec(insertion, params=parameters, execution_options=REMEMBERED)
        values |= {"id": result.inserted_primary_key.id, "archived_at": None}
        if session.in_nested_transaction():
            remember(session.sync_session, model, [values["id"]])
        return _persistent(session.sync_session, model, values)


def _persistent(session: Session, model: type[Row], values: dict[str, Any]) -> Row:
    # What was inserted is known: to have it returned and loaded takes as long again.
    held = session.identity_map.get(identity_key(model, values["id"]))
    if held is not None:
        session.expunge(held)  # Deleted elsewhere, and its id given anew.
    row: Row = sa.inspect(model).class_manager.new_instance()
    row.__dict__.update(values)
    make_transient_to_detached(row)
    session.add(row)
    # As after a flush: a rollback takes the row out of the session again, and its id may be another one's then.
    transaction: Any = session.get_nested_transaction() or session.get_transaction()
    transaction._new[sa.inspect(row)] = True
    return row


async def update(
    session: AsyncSession, model: type[Row], row_id: int, values: dict[str, Any], *conditions: sa.ColumnElement[bool]
) -> Row | None:
    """Change one row if it satisfies the conditions, and return it; None where no row does."""
    if not is_id(row_id):
        return None
    change = _change(model, values, col(model.id) == row_id, *conditions)
    options = {"synchronize_session": False, **REMEMBERED}
    async with statement(session):
        remember(session.sync_session, model, [row_id])
        if dialect_of(session, model).update_returning:
            change = change.returning(model)
            return (await session.exec(change, execution_options=options | AS_STORED)).scalars().first()
        if not (await session.exec(change, execution_options=options)).rowcount:
            return None
    return await fetch_by_id(session, model, row_id)


async def update_all(
    session: AsyncSession, model: type[Row], values: dict[str, Any], *conditions: sa.ColumnElement[bool]
) -> int:
    """Change every row that satisfies the conditions, in the session too, and return how many."""
    async with statement(session):
        return (await session.exec(_change(model, values, *conditions))).rowcount


def _change(model: type[Row], values: dict[str, Any], *conditions: sa.ColumnElement[bool]) -> sa.Update:
    bookkeeping = {"version": model.version + 1, "updated_at": datetime.now(UTC)}
    return sa.update(model).where(*conditions).values(**values, **bookkeeping)


async def delete(session: AsyncSession, model: type[Row], row_id: int, *conditions: sa.ColumnElement[bool]) -> bool:
    """Delete one row if it satisfies the conditions, which may name `row_id`; tell whether there was one to delete."""
    if not is_id(row_id):
        return False
    held = session.sync_session.identity_map.get(identity_key(model, row_id))
    # Only what the session holds has to be taken out of it, and that takes an ORM statement.
    deletion = prebuilt.deletion(sa.inspect(model).local_table if held is None else model, *conditions)
    options = {"synchronize_session": "fetch", **REMEMBERED}
    async with statement(session):
        return bool((await session.exec(deletion, params={"row_id": row_id}, execution_options=options)).rowcount)


def expect(shape: type[Scalar], data: object) -> Scalar:
    """Return the data; raise TypeError where it is not of this shape."""
    if not isinstance(data, shape):
        raise TypeError(f"expected {shape.__name__}, not {type(data).__name__}")
    return data


async def patch(
    session: AsyncSession,
    model: type[Row],
    row_id: int,
    changes: UserUpdate | PetUpdate,
    expected_version: int | None,
) -> Row | None:
    """Change the columns given in one row, and return it; None where it does not exist."""
    possible = expected_version is None or is_id(expected_version)
    if not (values := changed_values(changes)):
        fetch = fetch_by_id if expected_version is None else fetch_as_written
        row = await fetch(session, model, row_id)
        if row is not None and expected_version not in (None, row.version):
            raise StaleVersionError(expected_version)
        return row
    row = await _patch(session, model, row_id, values, expected_version) if possible else None
    if row is None and expected_version is not None and await fetch_as_written(session, model, row_id) is not None:
        raise StaleVersionError(expected_version)
    return row


async def _patch(
    session: AsyncSession, model: type[Row], row_id: int, values: dict[str, Any], expected_version: int | None
) -> Row | None:
    if not is_id(row_id):
        return None
    change = prebuilt.patch(model, frozenset(values), expected_version is not None)
    parameters = {**prebuilt.named(values), "new_updated_at": datetime.now(UTC), "row_id": row_id}
    if expected_version is not None:
        parameters["expected"] = expected_version
    async with statement(session):
        remember(session.sync_session, model, [row_id])
        if dialect_of(session, model).update_returning:
            return next(iter(await _returned(session, model, change, parameters)), None)
        if not (await session.exec(change, params=parameters, execution_options=REMEMBERED)).rowcount:
            return None
    return await fetch_by_id(session, model, row_id)


async def _returned(
    session: AsyncSession, model: type[Row], change: sa.Insert | sa.Update, parameters: dict[str, Any]
) -> list[Row]:
    returning = prebuilt.returning(model, change)
    options = AS_STORED | REMEMBERED
    return list((await session.exec(returning, params=parameters, execution_options=options)).scalars())


async def archive(session: AsyncSession, model: type[Row], row_id: int) -> Row | None:
    """Hide one row; archived again, it keeps its first moment."""
    first = sa.func.coalesce(model.archived_at, sa.literal(datetime.now(UTC), UTCDateTime()))
    return await update(session, model, row_id, {"archived_at": first})
