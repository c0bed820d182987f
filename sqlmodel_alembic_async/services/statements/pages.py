"""Lists of rows: orders, pages, cursors and streams."""

import base64
import hashlib
import json
import operator
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Literal, get_args

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from ...errors import InvalidCursorError
from ...fields import is_id
from ...models import Pet, Row, User
from . import chunks, execution, prebuilt
from .prebuilt import Terms

if TYPE_CHECKING:
    from ...display import Table

OrderBy = Literal["name", "-name", "created_at", "-created_at", "updated_at", "-updated_at", "id", "-id"]

Load = Callable[[AsyncSession, list[Row]], Awaitable[None]]

MAX_LIMIT = 1000
MAX_OFFSET = 2**31 - 1
_CHECKSUM_BYTES = 6


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """One page of a list of users or pets; IPython shows it as a table.

    Attributes:
        items: The rows of the page.
        next: The cursor of the next page, to be passed as `after`; None on the last page.

    """

    items: list[Row]
    next: str | None

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self._table().text())

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> "Table":
        from ...display import table_of

        number = "1 row" if len(self.items) == 1 else f"{len(self.items) or 'no'} rows"
        return table_of(self.items, number if self.next is None else f"{number}, more with after=page.next")


async def fetch_page(
    session: AsyncSession,
    model: type[Row],
    terms: Terms,
    *,
    order_by: OrderBy,
    limit: int,
    after: str | None,
    offset: int,
    load: Load[Row] | None = None,
) -> Page[Row]:
    """Return one page; the statement reads one more row, to find out whether a next page exists.

    `load` loads what the rows of the page refer to.
    """
    _check_number("limit", limit, 1, MAX_LIMIT)
    _check_number("offset", offset, 0, MAX_OFFSET)
    if order_by not in get_args(OrderBy):
        raise ValueError(f"order_by must be one of {', '.join(get_args(OrderBy))}")
    order = _order(model, order_by)
    values = prebuilt.values(terms) | {"page_size": limit + 1}
    cursor_dialect = ""
    if after is not None:
        if offset:
            raise ValueError("after and offset cannot be combined: pass only one of them")
        values |= order.cursor_values(after)
        cursor_dialect = execution.dialect_of(session, model).name
    if offset:
        values["page_offset"] = offset
    query = _query(order, frozenset(terms), cursor_dialect, bool(offset))
    if (found := await execution.load_all(session, model, query, values)) is None:
        fetch_all = chunks.fetch_all if limit > chunks.SLICE else execution.fetch_all
        found = await fetch_all(session, query, values)
    items = found[:limit]
    if load is not None:
        await load(session, items)
    return Page(items, order.cursor(items[-1]) if len(found) > limit else None)


async def stream(
    session: AsyncSession, model: type[Row], terms: Terms, *, order_by: OrderBy, load: Load[Row] | None = None
) -> AsyncIterator[Row]:
    """Yield every row, page by page, in constant memory; between two rows, the session can execute other statements."""
    after: str | None = None
    while True:
        page = await fetch_page(
            session, model, terms, order_by=order_by, limit=MAX_LIMIT, after=after, offset=0, load=load
        )
        for row in page.items:
            yield row
        if (after := page.next) is None:
            return


class _Order:
    """An order of a list. Rows with equal keys are ordered by id, so that each row has one position."""

    def __init__(self, model: type[User] | type[Pet], order_by: str) -> None:
        self.model = model
        self._order_by = order_by
        self._descending = order_by.startswith("-")
        name = order_by.removeprefix("-")
        self._attribute = "name_key" if name == "name" else name
        self._key = col(getattr(model, self._attribute))
        self._type = sa.inspect(model).columns[self._attribute].type
        self._id = col(model.id)

    @property
    def columns(self) -> list[sa.ColumnElement[Any]]:
        """Return the columns of ORDER BY."""
        columns = [self._id] if self._attribute == "id" else [self._key, self._id]
        return [column.desc() if self._descending else column.asc() for column in columns]

    def rows_after(self, dialect: str) -> sa.ColumnElement[bool]:
        """Return the condition for the rows after cursor_values(), in a form for which this engine uses the index."""
        beyond = operator.lt if self._descending else operator.gt
        key, row_id = sa.bindparam("cursor_key", type_=self._type), sa.bindparam("cursor_id", type_=sa.Integer())
        id_beyond: sa.ColumnElement[bool] = beyond(self._id, row_id)
        if self._attribute == "id":
            return id_beyond
        if dialect in ("mysql", "mariadb"):
            return sa.or_(beyond(self._key, key), sa.and_(self._key == key, id_beyond))
        condition: sa.ColumnElement[bool] = beyond(sa.tuple_(self._key, self._id), sa.tuple_(key, row_id))
        return condition

    def cursor(self, row: User | Pet) -> str:
        """Return the cursor for the rows after this one."""
        value = getattr(row, self._attribute)
        position = [value.isoformat() if isinstance(value, datetime) else value, row.id]
        payload = json.dumps([self.model.__tablename__, self._order_by, *position]).encode()
        return base64.urlsafe_b64encode(_checksum(payload) + payload).rstrip(b"=").decode()

    def cursor_values(self, cursor: str) -> dict[str, Any]:
        """Return the parameters of rows_after(); raise InvalidCursorError if the cursor is not of this order."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_")
            checksum, payload = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
            if checksum != _checksum(payload) or base64.urlsafe_b64encode(raw).rstrip(b"=") != cursor.encode():
                raise ValueError
            entity, order_by, value, row_id = json.loads(payload)
            if (entity, order_by) != (self.model.__tablename__, self._order_by) or not is_id(row_id):
                raise ValueError
            value = self._parse_key(value)
        except (TypeError, ValueError, OverflowError, RecursionError):
            raise InvalidCursorError(
                "the cursor is malformed or belongs to another list or order_by: start again without `after`"
            ) from None
        return {"cursor_key": value, "cursor_id": row_id}

    def _parse_key(self, value: Any) -> Any:
        if self._attribute == "id":
            return is_id(value)
        if not isinstance(value, str) or "\0" in value:
            raise ValueError
        value.encode()  # UnicodeEncodeError is a ValueError.
        return value if self._attribute == "name_key" else datetime.fromisoformat(value).astimezone(UTC)


@lru_cache(maxsize=1000)
def _order(model: type[User] | type[Pet], order_by: str) -> _Order:
    return _Order(model, order_by)


@lru_cache(maxsize=1000)
def _query(
    order: _Order, terms: frozenset[tuple[str, str]], cursor_dialect: str, has_offset: bool
) -> SelectOfScalar[Any]:
    model: Any = order.model
    query = select(model).where(*prebuilt.conditions(model, terms)).order_by(*order.columns)
    query = query.limit(sa.bindparam("page_size", type_=sa.Integer()))
    if cursor_dialect:
        query = query.where(order.rows_after(cursor_dialect))
    if has_offset:
        query = query.offset(sa.bindparam("page_offset", type_=sa.Integer()))
    return query


def _checksum(payload: bytes) -> bytes:
    """Return a checksum against damage; it needs no secret: a forged cursor only moves the start of the page."""
    return hashlib.blake2s(payload, digest_size=_CHECKSUM_BYTES).digest()


def _check_number(name: str, value: object, minimum: int, maximum: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        raise ValueError(f"{name} must be an integer from {minimum} to {maximum}")
