"""Fetch rows by many values of a unique column, in a form for which each engine uses the index."""

from collections.abc import Iterable, Mapping
from functools import cache
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from ...errors import TransactionConflictError
from ...models import Pet, Row, User
from . import chunks
from .chunks import BATCH_SIZE
from .execution import as_written, dialect_of

# MariaDB turns IN with 1,000 values into a sub-query, for which it may read and lock the whole table.
_LOCK_BATCH_SIZE = 500


async def fetch_rows(
    session: AsyncSession, model: type[Row], name: str, values: Iterable[Any], *, written: bool = False
) -> list[Row]:
    """Return the rows with one of these values; if `written`, the same row versions as an UPDATE sees."""
    query = _rows(model, name, dialect_of(session, model).name)
    return await _fetch(session, as_written(session, model, query) if written else query, values)


async def fetch_columns(
    session: AsyncSession, model: type[Row], name: str, values: Iterable[Any], *, locked: bool = False
) -> list[dict[str, Any]]:
    """Return the columns of the rows with one of these values, without loading objects.

    If `locked`, lock the rows on a server, and read their newest versions.
    """
    query = _columns(model, name, dialect_of(session, model).name, locked)
    found = await _fetch(session, query, values, _LOCK_BATCH_SIZE if locked else BATCH_SIZE)
    names = sa.inspect(model).local_table.c.keys()
    return await chunks.mapped(lambda row: dict(zip(names, row, strict=True)), found)


async def fetch_by_keys(
    session: AsyncSession, model: type[Row], keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the columns of rows by key, which is a column name and a value; two keys of a row share a dictionary."""
    wanted: dict[str, list[str]] = {}
    for name, value in keys:
        wanted.setdefault(name, []).append(value)
    found: dict[int, dict[str, Any]] = {}
    by_key = {}
    for name, values in wanted.items():
        for row in await fetch_columns(session, model, name, values):
            by_key[name, row[name]] = found.setdefault(row["id"], row)
    return by_key


async def lock(session: AsyncSession, model: type[Row], versions: Mapping[int, int]) -> None:
    """Lock rows in the order of their ids; raise TransactionConflictError if a version differs from the given one.

    SQLite needs no locks: there is one writer, and it cannot write if the database changed since it began to read.
    """
    if await lock_rows(session, model, versions) != versions:
        raise TransactionConflictError("another transaction changed or deleted a row in the meantime: try again")


async def lock_rows(session: AsyncSession, model: type[Row], versions: Mapping[int, int]) -> Mapping[int, int]:
    """Lock rows in the order of their ids, and return their versions; on SQLite, return the given ones."""
    dialect = dialect_of(session, model).name
    if not versions or dialect == "sqlite":
        return versions
    return dict(map(tuple, await _fetch(session, _lock(model, dialect), versions, _LOCK_BATCH_SIZE)))


async def _fetch(session: AsyncSession, query: Any, values: Iterable[Any], batch_size: int = BATCH_SIZE) -> list[Any]:
    found: list[Any] = []
    remaining = iter(sorted(set(values)))
    while batch := list(islice(remaining, batch_size)):
        found += await chunks.fetch_all(session, query, {"values": batch})
    return found


@cache
def _rows(model: type[User] | type[Pet], name: str, dialect: str) -> Any:
    if dialect == "postgresql":
        found, source = _lateral_lookup(model, name)
        return select(aliased(model, found)).select_from(source)
    return select(model).where(in_values(getattr(model, name)))


@cache
def _columns(model: type[User] | type[Pet], name: str, dialect: str, locked: bool = False) -> Any:
    if dialect == "postgresql":
        found, source = _lateral_lookup(model, name, locked)
        return sa.select(*found.c).select_from(source)
    table = sa.inspect(model).local_table
    query = sa.select(table).where(in_values(table.c[name]))
    if not locked:
        return query
    # MariaDB may read and lock the whole table instead: a deadlock with each transaction that is inserting a row.
    query = query.with_hint(table, f"FORCE INDEX (uq_{table.name}_{name})")
    return query.order_by(table.c[name]).with_for_update()


@cache
def _lock(model: type[User] | type[Pet], dialect: str) -> Any:
    table = sa.inspect(model).local_table
    query = sa.select(table.c.id, table.c.version)
    if dialect == "postgresql":
        value = unnested(table.c.id)
        # FOR NO KEY UPDATE: an INSERT that refers to the row by a foreign key need not wait.
        locked = query.where(table.c.id == value.c.value).limit(1).with_for_update(key_share=True).lateral()
        return sa.select(*locked.c).select_from(value.join(locked, sa.true()))
    return query.where(in_values(table.c.id)).order_by(table.c.id).with_for_update()


def in_values(column: Any) -> sa.ColumnElement[bool]:
    """Return the condition that the column has one of the values of the parameter `values`."""
    condition: sa.ColumnElement[bool] = column.in_(sa.bindparam("values", expanding=True))
    return condition


def _lateral_lookup(model: type[User] | type[Pet], name: str, locked: bool = False) -> tuple[Any, Any]:
    # PostgreSQL keeps the plan of a prepared statement, even if later calls have more values or the table grows. The
    # plan of IN or = ANY may then read the whole table. The plan of a lateral join looks up one value at a time.
    table = sa.inspect(model).local_table
    value = unnested(table.c[name])
    query = sa.select(table).where(table.c[name] == value.c.value).limit(1)
    found = (query.with_for_update(key_share=True) if locked else query).lateral()
    return found, value.join(found, sa.true())


def unnested(column: Any) -> Any:
    """Return the parameter `values` as a table of PostgreSQL, with the values of a column in `value`."""
    return sa.func.unnest(sa.bindparam("values", type_=ARRAY(column.type))).table_valued("value").render_derived()
