"""Insert the rows that are not stored and update the others, in one statement, while others may do the same.

A row that another transaction inserted or changed since it was read is not written: the caller reads it again.
"""

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlmodel.ext.asyncio.session import AsyncSession

from ...models import Row
from ...undo import REMEMBERED, remember, remember_insert
from . import key_lookup, many_rows
from .execution import dialect_of, statement

_BOOKKEEPING = {"name_key", "updated_at", "version"}
_NOT_INSERTED = {"id", "archived_at"}

Values = dict[str, Any]


async def write(
    session: AsyncSession, model: type[Row], key: str, rows: list[Values], changed: set[str], *, is_retry: bool
) -> dict[str, int]:
    """Write rows, and return the ids of those that are written, by their values of the unique column `key`.

    Args:
        session: The session.
        model: The table.
        key: The unique column by which the rows were looked up.
        rows: All columns of each row: a row with an id is updated if it is at the version before this one, a row
            without an id is inserted if no row has its key.
        changed: The columns in which a stored row changes, but for those of the bookkeeping.
        is_retry: Whether the rows were read by a statement that locks them.

    """
    rows = sorted(rows, key=lambda row: str(row[key]))  # Transactions that lock in one order do not deadlock.
    versions = {row["id"]: row["version"] - 1 for row in rows if "id" in row}
    async with statement(session):
        remember(session.sync_session, model, versions)
    names = _inserted_names(model, rows, {key, *changed})
    dialect = dialect_of(session, model).name
    if dialect == "postgresql":
        written = await _write_by_arrays(session, model, key, rows, names, frozenset(changed | _BOOKKEEPING))
    elif dialect == "sqlite":
        query = _insert_or_update_on_sqlite(model, names, frozenset(changed | _BOOKKEEPING))
        written = await _insert_or_update(session, model, key, query, names, rows)
    else:
        written = await _write_on_mysql(session, model, key, rows, names, changed, versions, is_retry)
    for row_id in set(written.values()) - versions.keys():
        remember_insert(session.sync_session, model, row_id)
    return written


def _inserted_names(model: type[Row], rows: list[Values], needed: set[str]) -> tuple[str, ...]:
    # Leave out columns that are null in all rows: a null parameter costs as much as a value. SQLite and MariaDB check
    # the constraints of the values to insert even if a row is updated; the notes, which may be long, have none.
    new = [row for row in rows if "id" not in row]
    return tuple(
        column.name
        for column in sa.inspect(model).local_table.c
        if column.name not in _NOT_INSERTED
        and (
            column.name in needed
            or any(row[column.name] is not None for row in (new if column.name == "notes" else rows))
        )
    )


# PostgreSQL: one UPDATE and one INSERT in a statement. INSERT … ON CONFLICT DO UPDATE alone would insert a stored row
# that another transaction has just deleted, and take a number of the id's sequence for each row that it updates.


async def _write_by_arrays(
    session: AsyncSession,
    model: type[Row],
    key: str,
    rows: list[Values],
    names: tuple[str, ...],
    updated: frozenset[str],
) -> dict[str, int]:
    query = _update_and_insert(model, key, names, updated)
    values = {f"all_{name}": [row.get(name) for row in rows] for name in ("id", *names)}
    async with statement(session):
        return dict(map(tuple, await session.exec(query, params=values, execution_options=REMEMBERED)))


@lru_cache(maxsize=1000)
def _update_and_insert(model: type[Row], key: str, names: tuple[str, ...], updated: frozenset[str]) -> Any:
    table: Any = sa.inspect(model).local_table
    columns = [table.c.id, *(table.c[name] for name in names)]
    arrays = [sa.bindparam(f"all_{column.name}", type_=postgresql.ARRAY(column.type)) for column in columns]
    given = sa.func.unnest(*arrays).table_valued(*(sa.column(column.name, column.type) for column in columns))
    given = given.render_derived(name="given")
    changed = (
        sa.update(table)
        .values({name: given.c[name] for name in names if name in updated})
        .where(table.c.id == given.c.id, table.c.version == given.c.version - sa.literal_column("1"))
        .returning(table.c[key], table.c.id)
        .cte("changed")
    )
    new = sa.select(*(given.c[name] for name in names)).where(given.c.id.is_(None))
    added = (
        postgresql.insert(table)
        .from_select(names, new)
        .on_conflict_do_nothing(index_elements=[key])
        .returning(table.c[key], table.c.id)
        .cte("added")
    )
    return sa.select(*changed.c).union_all(sa.select(*added.c))


# SQLite, MariaDB, MySQL: an INSERT that updates the stored rows, which are locked, so that it finds them.


@lru_cache(maxsize=1000)
def _insert_or_update_on_sqlite(model: type[Row], names: tuple[str, ...], updated: frozenset[str]) -> Any:
    from sqlalchemy.dialects import sqlite  # Other databases do not need this dialect, and its import takes time.

    table: Any = sa.inspect(model).local_table
    query = sqlite.insert(table).values({name: sa.bindparam(name) for name in ("id", *names)})
    return query.on_conflict_do_update(
        index_elements=["id"], set_={name: query.excluded[name] for name in names if name in updated}
    )


async def _write_on_mysql(
    session: AsyncSession,
    model: type[Row],
    key: str,
    rows: list[Values],
    names: tuple[str, ...],
    changed: set[str],
    versions: dict[int, int],
    is_retry: bool,
) -> dict[str, int]:
    new: list[Values] = [row for row in rows if "id" not in row]
    written: dict[str, int] = {}
    if is_retry:
        # The locks keep other transactions from inserting these keys, so a plain INSERT is enough. Unlike the statement
        # below, it raises an error if another unique value is taken.
        values = [{name: value for name, value in row.items() if name not in _NOT_INSERTED} for row in new]
        ids = await many_rows.insert_returning_ids(session, model, values)
        written = {row[key]: row_id for row, row_id in zip(new, ids, strict=True)}
        new = []
    else:
        versions = {
            row_id: version
            for row_id, version in (await key_lookup.lock_rows(session, model, versions)).items()
            if versions[row_id] == version
        }
    stored: list[Values] = [row for row in rows if row.get("id") in versions]
    query = _insert_or_update_on_mysql(model, names, frozenset(changed | _BOOKKEEPING))
    return written | await _insert_or_update(session, model, key, query, names, [*stored, *new])


@lru_cache(maxsize=1000)
def _insert_or_update_on_mysql(model: type[Row], names: tuple[str, ...], updated: frozenset[str]) -> Any:
    from sqlalchemy.dialects import mysql  # Other databases do not need this dialect, and its import takes time.

    table: Any = sa.inspect(model).local_table
    query = mysql.insert(table).values({name: sa.bindparam(name) for name in ("id", *names)})
    # A new row that has a unique value of any stored row leaves that one as it is. A locked row is found by its id.
    is_newer = table.c.version < query.inserted.version
    # The assignments are made in this order, and each reads the version.
    in_order = [*sorted(name for name in names if name in updated - {"version"}), "version"]
    return query.on_duplicate_key_update(
        [(name, sa.func.IF(is_newer, query.inserted[name], table.c[name])) for name in in_order]
    )


async def _insert_or_update(
    session: AsyncSession, model: type[Row], key: str, query: Any, names: tuple[str, ...], rows: list[Values]
) -> dict[str, int]:
    table: Any = sa.inspect(model).local_table
    columns = [table.c.id, *(table.c[name] for name in names)]
    returns = dialect_of(session, model).insert_executemany_returning  # MySQL has no RETURNING.
    query = query.returning(*columns) if returns else query
    found: list[Any] = []
    for portion in many_rows.portions(rows, len(columns)):
        values = [{name: row.get(name) for name in ("id", *names)} for row in portion]
        options = REMEMBERED | many_rows.paging(values)
        async with statement(session):
            result = await session.exec(query, params=values, execution_options=options)
            found += result.mappings() if returns else ()
    if not returns:
        found = await key_lookup.fetch_columns(session, model, key, [row[key] for row in rows])
    stored = {row[key]: row for row in found}
    # MariaDB also returns the rows that it left as they were.
    return {
        row[key]: stored[row[key]]["id"]
        for row in rows
        if row[key] in stored and all(stored[row[key]][name] == row[name] for name in names)
    }
