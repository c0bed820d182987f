"""Statements on one row, of users and of pets."""

from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.orm.util import identity_key
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from ...columns import UTCDateTime
from ...errors import StaleVersionError
from ...fields import is_id
from ...models import PetCreate, PetUpdate, Row, UserCreate, UserUpdate
from ...undo import REMEMBERED, remember, remember_insert
from . import prebuilt, unit_of_work
from .column_values import Shape, as_shape, changed_values, new_values
from .execution import POPULATE_EXISTING, as_written, dialect_of, fetch_one, load_all, statement

OnSimilar = Literal["allow", "error"]


async def fetch_by_id(session: AsyncSession, model: type[Row], row_id: int) -> Row | None:
    """Return one row, or None."""
    if not is_id(row_id):
        return None
    query, values = prebuilt.selection(model), {"row_id": row_id}
    if (loaded := await load_all(session, model, query, values)) is not None:
        return next(iter(loaded), None)
    return await fetch_one(session, query, values)


async def fetch_as_written(session: AsyncSession, model: type[Row], row_id: int) -> Row | None:
    """Return the version of one row that an UPDATE sees, or None."""
    if not is_id(row_id):
        return None
    return await fetch_one(session, as_written(session, model, prebuilt.selection(model)), {"row_id": row_id})


async def insert(session: AsyncSession, model: type[Row], shape: UserCreate | PetCreate) -> Row:
    """Insert one row, and return it."""
    values = new_values(shape)
    if unit_of_work.is_heard(session, model, "insert"):
        return (await unit_of_work.insert(session, model, [values]))[0]
    async with statement(session):
        insertion, parameters = prebuilt.insertion(model), prebuilt.named(values)
        result: Any = await session.exec(insertion, params=parameters, execution_options=REMEMBERED)
        values |= {"id": result.inserted_primary_key.id, "archived_at": None}
        remember_insert(session.sync_session, model, values["id"])
        return persistent(session.sync_session, model, values)


def persistent(session: Session, model: type[Row], values: dict[str, Any]) -> Row:
    """Return the row of these columns, which has been inserted, as a row of the session."""
    # All values are known. To return and load the row would double the time.
    held = session.identity_map.get(identity_key(model, values["id"]))
    if held is not None:
        session.expunge(held)  # Another session deleted it, and the database used its id again.
    row: Row = sa.inspect(model).class_manager.new_instance()
    row.__dict__.update(values)
    make_transient_to_detached(row)
    session.add(row)
    # As a flush does: a rollback must remove the row from the session, because another row may get its id.
    transaction: Any = session.get_nested_transaction() or session.get_transaction()
    transaction._new[sa.inspect(row)] = True
    return row


async def update(
    session: AsyncSession, model: type[Row], row_id: int, values: dict[str, Any], *conditions: sa.ColumnElement[bool]
) -> Row | None:
    """Update one row if it matches the conditions, and return it; None if no row does."""
    if not is_id(row_id):
        return None
    if unit_of_work.is_heard(session, model, "update"):
        return await unit_of_work.update_one(session, model, row_id, values, *conditions)
    change = prebuilt.change(model, values, col(model.id) == row_id, *conditions)
    options = {"synchronize_session": False, **REMEMBERED}
    async with statement(session):
        remember(session.sync_session, model, [row_id])
        if dialect_of(session, model).update_returning:
            change = change.returning(model)
            return (await session.exec(change, execution_options=options | POPULATE_EXISTING)).scalars().first()
        if not (await session.exec(change, execution_options=options)).rowcount:
            return None
    return await fetch_by_id(session, model, row_id)


async def delete(session: AsyncSession, model: type[Row], row_id: int, *conditions: sa.ColumnElement[bool]) -> bool:
    """Delete one row if it matches the conditions, which may use the parameter `row_id`; tell whether one did."""
    if not is_id(row_id):
        return False
    if unit_of_work.is_heard(session, model, "delete"):
        conditions = (col(model.id) == sa.bindparam("row_id"), *conditions)
        return await unit_of_work.delete(session, model, *conditions, parameters={"row_id": row_id})
    options = {"synchronize_session": "fetch", **REMEMBERED}
    async with statement(session):
        held = session.sync_session.identity_map.get(identity_key(model, row_id))
        # Only an ORM statement removes a row from the session that holds it.
        deletion = prebuilt.deletion(sa.inspect(model).local_table if held is None else model, *conditions)
        return bool((await session.exec(deletion, params={"row_id": row_id}, execution_options=options)).rowcount)


def expect(shape: type[Shape], data: object) -> Shape:
    """Return the data as this very shape; raise TypeError if it is of another one, or has fields of its own."""
    if type(data) is shape:
        return data
    if not isinstance(data, shape):
        raise TypeError(f"expected {shape.__name__}, not {type(data).__name__}")
    return as_shape(shape, data)


async def patch(
    session: AsyncSession,
    model: type[Row],
    row_id: int,
    changes: UserUpdate | PetUpdate,
    expected_version: int | None,
) -> Row | None:
    """Update one row with the columns that a shape sets, and return it; None if it does not exist."""
    possible = expected_version is None or is_id(expected_version)
    if not (values := changed_values(changes)):
        fetch = fetch_by_id if expected_version is None else fetch_as_written
        row = await fetch(session, model, row_id)
        if row is not None and expected_version not in (None, row.version):
            raise StaleVersionError(expected_version)
        return row
    row = await patch_values(session, model, row_id, values, expected_version) if possible else None
    if row is None and expected_version is not None and await fetch_as_written(session, model, row_id) is not None:
        raise StaleVersionError(expected_version)
    return row


async def patch_values(
    session: AsyncSession, model: type[Row], row_id: int, values: dict[str, Any], expected_version: int | None
) -> Row | None:
    """Update columns of one row, and return it; None if it does not exist or is not at the expected version."""
    if not is_id(row_id):
        return None
    if unit_of_work.is_heard(session, model, "update"):
        is_expected = [] if expected_version is None else [col(model.version) == expected_version]
        return await unit_of_work.update_one(session, model, row_id, values, *is_expected)
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
    options = POPULATE_EXISTING | REMEMBERED
    return list((await session.exec(returning, params=parameters, execution_options=options)).scalars())


async def archive(session: AsyncSession, model: type[Row], row_id: int) -> Row | None:
    """Archive one row; idempotent: keeps the first archived_at."""
    now = datetime.now(UTC)
    if is_id(row_id) and unit_of_work.is_heard(session, model, "update"):
        return await unit_of_work.archive(session, model, row_id, now)
    first = sa.func.coalesce(model.archived_at, sa.literal(now, UTCDateTime()))
    return await update(session, model, row_id, {"archived_at": first})
