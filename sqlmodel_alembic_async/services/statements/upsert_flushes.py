"""Insert new rows and update stored ones for an upsert, by a flush where the application listens to events of it.

As in `upsert_writes.py`, a row that another transaction inserted or changed since it was read is not written.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from secrets import token_hex
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlmodel.ext.asyncio.session import AsyncSession

from ...models import Pet, Row, User
from ...undo import REMEMBERED
from . import unit_of_work, upsert_writes
from .execution import dialect_of, statement
from .upsert_writes import Values

_NOT_CLAIMED = {"id", "archived_at"}
# All of them: MariaDB takes the locks of a row in the order of its unique keys.
_UNIQUE: dict[Any, tuple[str, ...]] = {User: ("external_ref", "email"), Pet: ("external_ref", "microchip")}


async def write(
    session: AsyncSession, model: type[Row], key: str, rows: list[Values], changed: set[str], *, is_retry: bool
) -> dict[str, int]:
    """Do what upsert_writes.write() does, and fire the events to which the application listens."""
    is_update_heard = unit_of_work.is_heard(session, model, "update")
    is_insert_heard = unit_of_work.is_heard(session, model, "insert")
    written: dict[str, int] = {}
    if is_update_heard:
        written |= await _update(session, model, key, [row for row in rows if "id" in row], changed)
    if unheard := [row for row in rows if not (is_update_heard if "id" in row else is_insert_heard)]:
        written |= await upsert_writes.write(session, model, key, unheard, changed, is_retry=is_retry)
    if is_insert_heard:
        new = [row for row in rows if "id" not in row]
        inserted: dict[str, Any] = await insert(session, model, key, new, is_retry=is_retry)
        written |= {value: row.id for value, row in inserted.items()}
    return written


async def _update(
    session: AsyncSession, model: type[Row], key: str, rows: list[Values], changed: set[str]
) -> dict[str, int]:
    # Lock in the order of upsert_writes.write(), which another transaction may use at the same time.
    order = key if dialect_of(session, model).name == "postgresql" else "id"
    in_order = sorted(rows, key=lambda row: row[order])
    updated = await unit_of_work.update_versions(session, model, in_order, changed, order)
    return {row[key]: row["id"] for row in rows if row["id"] in updated}


async def insert(
    session: AsyncSession, model: type[Row], key: str, rows: list[Values], *, is_retry: bool
) -> dict[str, Row]:
    """Insert the rows whose keys are not stored by a flush, and return them by key.

    On a server, another transaction may be inserting the same key. A flush would then fail and end the transaction, and
    fire events for a row that is not inserted. Therefore a statement first inserts rows that only have the unique
    values, and the flush writes over them.
    """
    rows = sorted(rows, key=lambda row: str(row[key]))  # Transactions that lock in one order do not deadlock.
    dialect = dialect_of(session, model).name
    # On SQLite, and on MariaDB and MySQL after a query that locks, no other transaction can insert one of these keys.
    if not rows or dialect == "sqlite" or (is_retry and dialect != "postgresql"):
        return _by_key(key, rows, await unit_of_work.insert(session, model, rows))
    token = token_hex(16)  # No stored row has this name, so that only rows of this function are deleted.
    blank = model(name=token).model_dump(exclude=_NOT_CLAIMED) | {"name_key": token, "version": 1}
    claims = [blank | {name: row[name] for name in (*_UNIQUE[model], "created_at", "updated_at")} for row in rows]
    ids = await upsert_writes.write(session, model, key, claims, set(), is_retry=False)
    rows = [row | {"id": ids[row[key]]} for row in rows if row[key] in ids]
    table: Any = sa.inspect(model).local_table
    # One by one: MariaDB and MySQL would also lock the gaps of a range, into which another transaction inserts.
    deletion = sa.delete(table).where(table.c.id == sa.bindparam("row_id"), table.c.name == token)
    connection = await session.connection(bind_arguments={"mapper": model})
    claimed = set(ids.values())
    try:
        with _written_over(connection.sync_connection, table, claimed, deletion):
            return _by_key(key, rows, await unit_of_work.insert(session, model, rows))
    finally:
        if claimed and session.is_active:  # A listener removed a row from the flush, or refused the flush.
            async with statement(session):
                await session.exec(deletion, params=_parameters(claimed), execution_options=REMEMBERED)


def _parameters(ids: Iterable[int]) -> list[Values]:
    return [{"row_id": row_id} for row_id in sorted(ids)]


def _by_key(key: str, rows: list[Values], inserted: list[Row]) -> dict[str, Row]:
    return {values[key]: row for values, row in zip(rows, inserted, strict=True)}


@contextmanager
def _written_over(connection: Any, table: sa.Table, claimed: set[int], deletion: sa.Delete) -> Iterator[None]:
    """Let an INSERT of rows with these ids write over the stored rows, and remove the ids from the set."""

    def replace(
        connection: sa.Connection, element: Any, many: list[Values], one: Values, options: object
    ) -> tuple[Any, list[Values], Values]:
        if not isinstance(element, sa.Insert) or element.table is not table:
            return element, many, one
        given: set[Any] = {row.get("id") for row in many or [one]}
        if given <= claimed:
            element = _upsert(table, connection.dialect.name, (many or [one])[0].keys() - {"id"})
        elif own := claimed & given:  # A listener added a row with an id: if that is stored, the INSERT must fail.
            connection.execute(deletion, _parameters(own))
        claimed.difference_update(given)
        return element, many, one

    sa.event.listen(connection, "before_execute", replace, retval=True)
    try:
        yield
    finally:
        sa.event.remove(connection, "before_execute", replace)


def _upsert(table: sa.Table, dialect: str, names: set[str]) -> Any:
    if dialect == "postgresql":
        insertion = postgresql.insert(table)
        values = {name: insertion.excluded[name] for name in sorted(names)}
        return insertion.on_conflict_do_update(index_elements=["id"], set_=values)
    from sqlalchemy.dialects import mysql  # Other databases do not need this dialect, and its import takes time.

    query = mysql.insert(table)
    return query.on_duplicate_key_update({name: query.inserted[name] for name in sorted(names)})
