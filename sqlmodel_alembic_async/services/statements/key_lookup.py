"""Rows by many values of a unique column, in the form that each engine's index serves."""

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

# MariaDB makes a sub-query of 1,000 values, for which it may read, and so lock, the whole table.
_MOST_LOCKED = 500


async def fetch_rows(
    session: AsyncSession, model: type[Row], name: str, values: Iterable[Any], *, written: bool = False
) -> list[Row]:
    """Return the rows with one of these values; as a statement that writes sees them, where they are `written`."""
    query = _rows(model, name, dialect_of(session, model).name)
    return await _fetch(session, as_written(session, model, query) if written else query, values)


async def fetch_columns(
    session: AsyncSession, model: type[Row], name: str, values: Iterable[Any]
) -> list[dict[str, Any]]:
    """Return the columns of the rows with one of these values."""
    found = await _fetch(session, _columns(model, name, dialect_of(session, model).name), values)
    names = sa.inspect(model).local_table.c.keys()
    return await chunks.mapped(lambda row: dict(zip(names, row, strict=True)), found)


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
        for row in await fetch_columns(session, model, name, values):
            by_key[name, row[name]] = found.setdefault(row["id"], row)
    return by_key


async def lock(session: AsyncSession, model: type[Row], versions: Mapping[int, int]) -> None:
    """Lock rows, in the order of their ids; raise TransactionConflictError unless all are at the versions given.

    SQLite does without: its one writer refuses to write over what it has not read.
    """
    dialect = dialect_of(session, model).name
    if not versions or dialect == "sqlite":
        return
    locked = await _fetch(session, _lock(model, dialect), versions, _MOST_LOCKED)
    if dict(map(tuple, locked)) != versions:
        raise TransactionConflictError("another transaction changed a row meanwhile: try again")


async def _fetch(session: AsyncSession, query: Any, values: Iterable[Any], batch_size: int = BATCH_SIZE) -> list[Any]:
    found: list[Any] = []
    remaining = iter(sorted(set(values)))
    while batch := list(islice(remaining, batch_size)):
        found += await chunks.fetch_all(session, query, {"values": batch})
    return found


@cache
def _rows(model: type[User] | type[Pet], name: str, dialect: str) -> Any:
    if dialect == "postgresql":
        found, source = _one_by_one(model, name)
        return select(aliased(model, found)).select_from(source)
    return select(model).where(_is_one_of_the_values(getattr(model, name)))


@cache
def _columns(model: type[User] | type[Pet], name: str, dialect: str) -> Any:
    if dialect == "postgresql":
        found, source = _one_by_one(model, name)
        return sa.select(*found.c).select_from(source)
    table = sa.inspect(model).local_table
    return sa.select(table).where(_is_one_of_the_values(table.c[name]))


@cache
def _lock(model: type[User] | type[Pet], dialect: str) -> Any:
    table = sa.inspect(model).local_table
    query = sa.select(table.c.id, table.c.version)
    if dialect == "postgresql":
        value = _unnested(table.c.id)
        # Not the key: what only refers to the row need not wait.
        locked = query.where(table.c.id == value.c.value).limit(1).with_for_update(key_share=True).lateral()
        return sa.select(*locked.c).select_from(value.join(locked, sa.true()))
    return query.where(_is_one_of_the_values(table.c.id)).order_by(table.c.id).with_for_update()


def _is_one_of_the_values(column: Any) -> sa.ColumnElement[bool]:
    condition: sa.ColumnElement[bool] = column.in_(sa.bindparam("values", expanding=True))
    return condition


def _one_by_one(model: type[User] | type[Pet], name: str) -> tuple[Any, Any]:
    # PostgreSQL keeps the plan of a statement, however many values follow, and however much the table grows meanwhile:
    # with IN or = ANY, it may read the whole table for them. The plan for one value is right for any number.
    table = sa.inspect(model).local_table
    value = _unnested(table.c[name])
    found = sa.select(table).where(table.c[name] == value.c.value).limit(1).lateral()
    return found, value.join(found, sa.true())


def _unnested(column: Any) -> Any:
    return sa.func.unnest(sa.bindparam("values", type_=ARRAY(column.type))).table_valued("value").render_derived()
