"""Write rows by a flush: slower than a statement, but it fires the events of SQLAlchemy's unit of work.

Services write by statements, unless the application listens to one of these events.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.sql.visitors import replacement_traverse
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ...models import Pet, Row, User
from ...row_validation import written_by_service
from ...undo import remember
from .chunks import SLICE
from .execution import dialect_of, fetch_all, is_reader, statement
from .row_locks import lock_database

Kind = Literal["insert", "update", "delete"]

# The listeners to before_insert, before_update and before_delete that row_validation, models and undo have.
_OWN_LISTENERS = {"insert": {User: 1, Pet: 1}, "update": {User: 2, Pet: 3}, "delete": {User: 1, Pet: 1}}

_MAPPER_EVENTS: dict[tuple[Any, str], tuple[Any, str, int, str]] = {
    (model, kind): (sa.inspect(model), f"before_{kind}", own, f"after_{kind}")
    for kind, models in _OWN_LISTENERS.items()
    for model, own in models.items()
}


def is_heard(session: AsyncSession, model: type[Row], kind: Kind) -> bool:
    """Tell whether the application listens to an event that a flush of such a change fires."""
    mapper, before, own, after = _MAPPER_EVENTS[model, kind]
    of_mapper, of_session = mapper.dispatch, session.sync_session.dispatch
    is_heard = (
        len(getattr(of_mapper, before)) > own
        or getattr(of_mapper, after)
        or of_session.before_flush
        or of_session.after_flush
        or of_session.after_flush_postexec
    )
    return bool(is_heard) and not is_reader(session)  # A reader refuses the statement, before any SQL.


async def insert(session: AsyncSession, model: type[Row], values: list[dict[str, Any]]) -> list[Row]:
    """Insert rows, and return them."""
    rows: list[Row] = []
    for start in range(0, len(values), SLICE):
        async with statement(session):
            rows += await _insert(session, [model(**each) for each in values[start : start + SLICE]])
    return rows


async def _insert(session: AsyncSession, rows: list[Row]) -> list[Row]:
    session.add_all(rows)
    try:
        with written_by_service(rows):
            await session.flush()
    except BaseException:
        for row in rows:
            if sa.inspect(row).pending:
                session.expunge(row)
        raise
    return rows


async def update_one(
    session: AsyncSession, model: type[Row], row_id: int, values: dict[str, Any], *conditions: sa.ColumnElement[bool]
) -> Row | None:
    """Update one row if it matches the conditions, and return it; None if it does not."""
    rows = await _locked_by_id(session, model, [row_id], *conditions)
    await _write(session, [(row, values) for row in rows])
    return next(iter(rows), None)


async def archive(session: AsyncSession, model: type[Row], row_id: int, now: datetime) -> Row | None:
    """Archive one row, and return it; None if it does not exist. It keeps its first archived_at."""
    rows = await _locked_by_id(session, model, [row_id])
    await _write(session, [(row, {"archived_at": row.archived_at or now}) for row in rows])
    return next(iter(rows), None)


async def update_each(session: AsyncSession, model: type[Row], changes: dict[int, dict[str, Any]]) -> None:
    """Update rows by id, each with its own values."""
    ids = sorted(changes)
    for start in range(0, len(ids), SLICE):
        rows: list[Any] = await _locked_by_id(session, model, ids[start : start + SLICE])
        await _write(session, [(row, changes[row.id]) for row in rows])


async def update_versions(
    session: AsyncSession, model: type[Row], rows: list[dict[str, Any]], names: Iterable[str], order: str
) -> set[int]:
    """Update these columns of rows that are at the version before the given one, and return the ids of those rows.

    Rows are locked in the order in which they are given, which is that of the column `order`.
    """
    updated: set[int] = set()
    for start in range(0, len(rows), SLICE):
        given = {row["id"]: row for row in rows[start : start + SLICE]}
        found: list[Any] = await _locked_by_id(session, model, list(given), order=order)
        current = [row for row in found if row.version == given[row.id]["version"] - 1]
        updated.update(row.id for row in current)
        await _write(session, [(row, {name: given[row.id][name] for name in names}) for row in current])
    return updated


async def update_all(
    session: AsyncSession, model: type[Row], values: dict[str, Any], *conditions: sa.ColumnElement[bool]
) -> int:
    """Update every row that matches the conditions, and return their number."""
    rows = await _locked(session, model, *conditions)
    await _write(session, [(row, values) for row in rows])
    return len(rows)


async def delete(
    session: AsyncSession, model: type[Row], *conditions: sa.ColumnElement[bool], parameters: dict[str, Any]
) -> bool:
    """Delete the rows that match the conditions; tell whether there were any."""
    if dialect_of(session, model).name in ("mysql", "mariadb"):
        conditions = tuple(map(_locking, conditions))
    await lock_database(session, model)
    rows = await fetch_all(session, select(model).where(*conditions).with_for_update(), parameters)
    async with statement(session):
        for row in rows:
            await session.delete(row)
        try:
            await session.flush()
        except BaseException:
            session.add_all([row for row in rows if row in session.deleted])
            raise
    return bool(rows)


def _locking(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    # In MariaDB and MySQL, a query inside a DELETE sees the newest rows, but one inside a SELECT reads the snapshot.
    def lock(element: Any, **options: Any) -> Any:
        return element.with_for_update(read=True) if isinstance(element, sa.Select) else None

    return replacement_traverse(condition, {}, lock)


async def _locked_by_id(
    session: AsyncSession, model: type[Row], ids: list[int], *conditions: sa.ColumnElement[bool], order: str = "id"
) -> list[Row]:
    async with statement(session):
        remember(session.sync_session, model, ids)  # Before the query refreshes the rows that the session holds.
    return await _locked(session, model, col(model.id).in_(ids), *conditions, order=order)


async def _locked(
    session: AsyncSession, model: type[Row], *conditions: sa.ColumnElement[bool], order: str = "id"
) -> list[Row]:
    # Lock as an UPDATE does. In PostgreSQL, rows that refer to a row by a foreign key need not wait for it.
    await lock_database(session, model)
    query = select(model).where(*conditions).order_by(col(getattr(model, order))).with_for_update(key_share=True)
    return await fetch_all(session, query)


async def _write(session: AsyncSession, changes: list[tuple[Row, dict[str, Any]]]) -> None:
    now = datetime.now(UTC)
    earlier = []
    async with statement(session):
        for row, values in changes:
            for name, value in {**values, "updated_at": now}.items():
                earlier.append((row, name, getattr(row, name)))
                setattr(row, name, value)
        try:
            with written_by_service([row for row, _ in changes]):
                await session.flush()
        except BaseException:
            edited = session.dirty
            for row, name, value in earlier:
                if row in edited:  # A listener refused the flush before it began.
                    set_committed_value(row, name, value)
            raise
