"""The statements on many rows at once, a batch of them at a time."""

from asyncio import CancelledError
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSessionTransaction
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ..faults import translated
from ..fields import NOTES_LENGTH
from ..models import Pet, PetCreate, User, UserCreate
from . import statements
from .rows import AS_STORED, dialect_of, expect, statement
from .values import new_values

Row = TypeVar("Row", User, Pet)

_BATCH = 1000


async def insert_many(
    session: AsyncSession, model: type[Row], shape: type[UserCreate] | type[PetCreate], rows: Iterable[Any]
) -> int:
    """Insert rows batch by batch, and return how many; the whole input is never held in memory."""
    inserted = 0
    remaining = iter(rows)
    while values := [new_values(expect(shape, row)) for row in islice(remaining, _BATCH)]:
        await insert_all(session, model, values)
        inserted += len(values)
    return inserted


async def insert_all(session: AsyncSession, model: type[Row], values: list[dict[str, Any]]) -> None:
    """Insert the rows of one batch."""
    # A column that is null in all of them costs as much as one with a value.
    names = [name for name in values[0] if any(row[name] is not None for row in values)] if values else []
    if names:
        async with statement(session):
            parameters = [{name: row[name] for name in names} for row in values]
            await session.exec(sa.insert(sa.inspect(model).local_table), params=parameters)


async def insert_returning_ids(session: AsyncSession, model: type[Row], values: list[dict[str, Any]]) -> list[int]:
    """Insert the rows of one batch, and return their ids."""
    if not values:
        return []
    table = sa.inspect(model).local_table
    async with statement(session):
        await session.connection()  # MariaDB can return what it inserts, MySQL can not: it is told when connecting.
        if dialect_of(session, model).insert_executemany_returning_sort_by_parameter_order:
            returning = sa.insert(table).returning(table.c.id, sort_by_parameter_order=True)
            # One statement must not be longer than MariaDB takes, which is four times the longest notes.
            long = sum(len(row["notes"] or "") for row in values) > NOTES_LENGTH
            options = {"insertmanyvalues_page_size": 1 if long else _BATCH}
            return list((await session.exec(returning, params=values, execution_options=options)).scalars())
        insertion = statements.insertion(model)
        results: list[Any] = [await session.exec(insertion, params=statements.named(row)) for row in values]
        return [result.inserted_primary_key.id for result in results]


async def update_each(session: AsyncSession, model: type[Row], changes: dict[int, dict[str, Any]]) -> None:
    """Change rows, each in its own way; rows that the session holds stay as they are until refresh()."""
    by_form: dict[frozenset[str], list[dict[str, Any]]] = {}
    now = datetime.now(UTC)
    for row_id, values in changes.items():
        parameters = {**statements.named(values), "new_updated_at": now, "row_id": row_id}
        by_form.setdefault(frozenset(values), []).append(parameters)
    for names, many in by_form.items():
        async with statement(session):
            await session.exec(statements.patch(model, names, False), params=many)


def held_ids(session: AsyncSession, model: type[Row]) -> set[int]:
    """Return the ids of the rows that the session holds."""
    held: Iterable[Any] = session.sync_session.identity_map.values()
    return {sa.inspect(row).identity[0] for row in held if isinstance(row, model)}


async def refresh(session: AsyncSession, model: type[Row], ids: Iterable[int]) -> None:
    """Read anew these rows, which the session holds."""
    await _in_batches(session, select(model), col(model.id), ids, AS_STORED)


async def fetch_where_in(
    session: AsyncSession, model: type[Row], name: str, values: Iterable[Any]
) -> list[dict[str, Any]]:
    """Return the columns of all rows with one of these values."""
    table = sa.inspect(model).local_table
    found = await _in_batches(session, sa.select(table), table.c[name], values, {})
    return [dict(row._mapping) for row in found]


async def fetch_by_keys(
    session: AsyncSession, model: type[Row], keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the columns of the rows by their keys, a column and its value; one row by two keys is one dictionary."""
    wanted: dict[str, list[str]] = {}
    for name, value in keys:
        wanted.setdefault(name, []).append(value)
    found: dict[int, dict[str, Any]] = {}
    by_key = {}
    for name, values in wanted.items():
        for row in await fetch_where_in(session, model, name, values):
            by_key[name, row[name]] = found.setdefault(row["id"], row)
    return by_key


async def _in_batches(
    session: AsyncSession, query: Any, column: Any, values: Iterable[Any], options: dict[str, bool]
) -> list[Any]:
    found: list[Any] = []
    remaining = iter(sorted(set(values)))
    while batch := list(islice(remaining, _BATCH)):
        async with statement(session):
            found += await session.exec(query.where(column.in_(batch)), execution_options=options)
    return found


@asynccontextmanager
async def savepoint(session: AsyncSession) -> AsyncIterator[AsyncSessionTransaction]:
    """Take back on an error, or where it is rolled back, what was done inside."""
    async with statement(session):
        connection = await session.connection()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        if connection.dialect.driver == "aiosqlite" and not hasattr(driver, "begin") and not driver.in_transaction:
            # An engine that is not prepare()d would begin with the savepoint, and commit where that ends.
            await connection.exec_driver_sql("BEGIN")
    cancelled = None
    with translated():
        try:
            async with session.begin_nested() as nested:
                try:
                    yield nested
                except CancelledError as error:
                    cancelled = error
                    raise
        except PendingRollbackError as error:
            raise cancelled or error from None  # The task that was cancelled is to learn that, not what it lost by it.
