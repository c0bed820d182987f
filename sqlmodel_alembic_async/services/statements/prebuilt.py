"""Statements that are built once and cached, because building one takes longer than executing it."""

import operator
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import SQLModel, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from ...models import Row

# By column name and operator: the value to compare with.
Terms = dict[tuple[str, str], Any]


class _Position(FunctionElement[int]):
    """The position of a text in another, or 0. It replaces LIKE: SQLite's reads U+FFFE and U+FFFF as U+FFFD."""

    name = "instr"
    type = sa.Integer()
    inherit_cache = True


@compiles(_Position)
def _compile_position(position: _Position, compiler: Any, **options: Any) -> str:
    return f"instr({compiler.process(position.clauses, **options)})"


@compiles(_Position, "postgresql")
def _compile_position_on_postgresql(position: _Position, compiler: Any, **options: Any) -> str:
    return f"strpos({compiler.process(position.clauses, **options)})"


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ge": operator.ge,
    "le": operator.le,
    "lt": operator.lt,
    "contains": lambda column, part: _Position(column, part) > 0,
}

_SET_BY_THE_DATABASE = {"id", "archived_at"}


def named(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values by parameter name; SQLAlchemy reserves the name of the column itself."""
    return {f"new_{name}": value for name, value in values.items()}


@cache
def selection(model: type[Row]) -> SelectOfScalar[Row]:
    """Select the row `row_id`."""
    return select(model).where(col(model.id) == sa.bindparam("row_id"))


@cache
def locking_selection(model: type[Row]) -> SelectOfScalar[Row]:
    """Select and lock the row `row_id`."""
    return _locking(selection(model))


@cache
def selection_by(model: type[Row], name: str, *, locked: bool) -> SelectOfScalar[Row]:
    """Select the row that has the value `key` in a unique column; lock it if `locked`."""
    query = select(model).where(col(getattr(model, name)) == sa.bindparam("key"))
    return _locking(query) if locked else query


def _locking(query: SelectOfScalar[Row]) -> SelectOfScalar[Row]:
    # FOR NO KEY UPDATE on PostgreSQL: a new pet of a locked user need not wait.
    return query.with_for_update(key_share=True)


@cache
def insertion(model: type[Row]) -> sa.Insert:
    """Insert one row of new_values()."""
    table = _table(model)
    names = [column.name for column in table.c if column.name not in _SET_BY_THE_DATABASE]
    return sa.insert(table).values({name: sa.bindparam(f"new_{name}") for name in names})


@lru_cache(maxsize=1000)
def patch(model: type[Row], names: frozenset[str], versioned: bool) -> sa.Update:
    """Update these columns of the row `row_id`; if `versioned`, only at the version `expected`."""
    table = _table(model)
    values: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in sorted(names)}
    change = sa.update(table).where(table.c.id == sa.bindparam("row_id"))
    if versioned:
        change = change.where(table.c.version == sa.bindparam("expected"))
    return change.values(**values, **_bookkeeping(table.c, sa.bindparam("new_updated_at")))


def change(model: type[Row], values: dict[str, Any], *conditions: sa.ColumnElement[bool]) -> sa.Update:
    """Update the rows that match the conditions; not cached."""
    return sa.update(model).where(*conditions).values(**values, **_bookkeeping(model, datetime.now(UTC)))


def _bookkeeping(columns: Any, now: Any) -> dict[str, Any]:
    """Return the columns that each UPDATE sets; in a flush, row_validation and version_id_col do the same."""
    return {"version": columns.version + 1, "updated_at": now}


@lru_cache(maxsize=1000)
def returning(model: type[Row], change: sa.Update) -> Any:
    """Return the statement, extended to return the rows that it writes."""
    return sa.select(model).from_statement(change.returning(_table(model)))


@lru_cache(maxsize=1000)
def count(model: type[Row], terms: frozenset[tuple[str, str]]) -> SelectOfScalar[int]:
    """Count the rows that match the terms."""
    return select(func.count()).select_from(model).where(*conditions(model, terms))


def conditions(model: type[Row], terms: Iterable[tuple[str, str]]) -> list[sa.ColumnElement[bool]]:
    """Return the SQL conditions of the terms, whose parameters are values()."""
    found = []
    for name, operation in sorted(terms):
        column = col(getattr(model, name))
        if operation in ("is_", "is_not"):
            found.append(getattr(column, operation)(None))
        else:
            found.append(_OPERATORS[operation](column, sa.bindparam(f"{name}_{operation}")))
    return found


def values(terms: Terms) -> dict[str, Any]:
    """Return the parameters of conditions()."""
    return {f"{name}_{operation}": value for (name, operation), value in terms.items() if value is not None}


@lru_cache(maxsize=100)
def deletion(model: Any, *conditions: sa.ColumnElement[bool]) -> sa.Delete:
    """Delete the row `row_id`. With a table instead of a model it is faster, but a session keeps the object."""
    columns = model.c if isinstance(model, sa.Table) else model
    return sa.delete(model).where(columns.id == sa.bindparam("row_id"), *conditions)


def _table(model: type[Row]) -> sa.Table:
    return SQLModel.metadata.tables[str(model.__tablename__)]
