"""Statements on many rows, in batches."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm.util import identity_key
from sqlmodel.ext.asyncio.session import AsyncSession

from ...fields import NOTES_LENGTH
from ...models import PetCreate, Row, UserCreate
from ...undo import REMEMBERED, remember
from . import key_lookup, prebuilt, unit_of_work
from .chunks import BATCH_SIZE
from .column_values import new_values
from .execution import dialect_of, fetch_all, statement
from .one_row import expect

_MAX_PARAMETERS = 10_000


async def insert_many(
    session: AsyncSession, model: type[Row], shape: type[UserCreate] | type[PetCreate], rows: Iterable[Any]
) -> int:
    """Insert rows in batches, and return their number; memory holds one batch at a time."""
    inserted = 0
    remaining = iter(rows)
    while values := [new_values(expect(shape, row)) for row in islice(remaining, BATCH_SIZE)]:
        await insert_all(session, model, values)
        inserted += len(values)
    return inserted


async def insert_all(session: AsyncSession, model: type[Row], values: list[dict[str, Any]]) -> None:
    """Insert the rows of one batch."""
    if unit_of_work.is_heard(session, model, "insert"):
        await unit_of_work.insert(session, model, values)
        return
    # A null parameter costs as much as a value.
    names = [name for name in values[0] if any(row[name] is not None for row in values)] if values else []
    for portion in portions(values, len(names)):
        async with statement(session):
            parameters = [{name: row[name] for name in names} for row in portion]
            await session.exec(sa.insert(sa.inspect(model).local_table), params=parameters)


async def insert_returning_ids(session: AsyncSession, model: type[Row], values: list[dict[str, Any]]) -> list[int]:
    """Insert the rows of one batch, and return their ids."""
    if unit_of_work.is_heard(session, model, "insert"):
        rows: list[Any] = await unit_of_work.insert(session, model, values)
        return [row.id for row in rows]
    ids: list[int] = []
    for portion in portions(values, len(sa.inspect(model).local_table.c)):
        ids += await _insert_returning_ids(session, model, portion)
    return ids


async def _insert_returning_ids(session: AsyncSession, model: type[Row], values: list[dict[str, Any]]) -> list[int]:
    table = sa.inspect(model).local_table
    async with statement(session):
        await session.connection()  # Only a connected dialect knows whether the server is MariaDB, which has RETURNING.
        if dialect_of(session, model).insert_executemany_returning_sort_by_parameter_order:
            returning = sa.insert(table).returning(table.c.id, sort_by_parameter_order=True)
            return list((await session.exec(returning, params=values, execution_options=paging(values))).scalars())
        insertion = prebuilt.insertion(model)
        results: list[Any] = [await session.exec(insertion, params=prebuilt.named(row)) for row in values]
        return [result.inserted_primary_key.id for result in results]


def paging(values: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the execution options by which an INSERT … RETURNING has all rows in one statement, if it can."""
    # Stay below max_allowed_packet of MariaDB, which is four times NOTES_LENGTH in bytes.
    has_long_notes = sum(len(row.get("notes") or "") for row in values) > NOTES_LENGTH
    return {"insertmanyvalues_page_size": 1 if has_long_notes else BATCH_SIZE}


async def update_each(session: AsyncSession, model: type[Row], changes: dict[int, dict[str, Any]]) -> None:
    """Update rows by id, each with its own values; rows that the session holds keep the old values until refresh()."""
    if unit_of_work.is_heard(session, model, "update"):
        await unit_of_work.update_each(session, model, changes)
        return
    by_columns: dict[frozenset[str], list[dict[str, Any]]] = {}
    now = datetime.now(UTC)
    for row_id, values in changes.items():
        parameters = {**prebuilt.named(values), "new_updated_at": now, "row_id": row_id}
        by_columns.setdefault(frozenset(values), []).append(parameters)
    for names, rows in by_columns.items():
        for portion in portions(rows, len(names)):
            async with statement(session):
                remember(session.sync_session, model, (row["row_id"] for row in portion))
                await session.exec(prebuilt.patch(model, names, False), params=portion, execution_options=REMEMBERED)


def portions(rows: list[dict[str, Any]], width: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows, each of which has `width` values, in lists for one statement each."""
    """Split rows for statements of at most _MAX_PARAMETERS: SQLAlchemy prepares all of them while other tasks wait."""
    size = _MAX_PARAMETERS // max(width, 1)
    return (rows[start : start + size] for start in range(0, len(rows), size))


def held_ids(session: AsyncSession, model: type[Row], ids: Iterable[int]) -> set[int]:
    """Return those of the ids whose rows the session holds."""
    held = session.sync_session.identity_map
    return {row_id for row_id in ids if identity_key(model, row_id) in held}


async def refresh(session: AsyncSession, model: type[Row], ids: Iterable[int]) -> None:
    """Refresh these rows, which the session holds, after an update."""
    await key_lookup.fetch_rows(session, model, "id", ids, written=True)


async def count(session: AsyncSession, model: type[Row], terms: prebuilt.Terms) -> int:
    """Return the number of rows that match the terms."""
    return (await fetch_all(session, prebuilt.count(model, frozenset(terms)), prebuilt.values(terms)))[0]


async def update_all(
    session: AsyncSession, model: type[Row], values: dict[str, Any], *conditions: sa.ColumnElement[bool]
) -> int:
    """Update every row that matches the conditions, also in the session, and return their number."""
    if unit_of_work.is_heard(session, model, "update"):
        return await unit_of_work.update_all(session, model, values, *conditions)
    async with statement(session):
        return (await session.exec(prebuilt.change(model, values, *conditions))).rowcount
