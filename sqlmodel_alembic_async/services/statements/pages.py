"""Lists: their orders, the cursor that leads from one page to the next, and streams."""

import base64
import hashlib
import json
import operator
from collections.abc import AsyncIterator
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

MAX_LIMIT = 1000
_MAX_OFFSET = 2**31 - 1
_CHECKSUM_BYTES = 6


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """One page of a list, a table in IPython; `next` is the cursor for `after=`, None on the last page."""

    items: list[Row]
    next: str | None

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self._table().text())

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> "Table":
        from ...display import table_of  # only who looks at a page waits for it

        number = "1 row" if len(self.items) == 1 else f"{len(self.items) or 'no'} rows"
        return table_of(self.items, number if self.next is None else f"{number}, more follow: after=page.next")


async def fetch_page(
    session: AsyncSession,
    model: type[Row],
    terms: Terms,
    *,
    order_by: OrderBy,
    limit: int,
    after: str | None,
    offset: int,
) -> Page[Row]:
    """Return one page in one statement: it asks for one row more, to know whether a next page exists."""
    _check_number("limit", limit, 1, MAX_LIMIT)
    _check_number("offset", offset, 0, _MAX_OFFSET)
    if order_by not in get_args(OrderBy):
        raise ValueError(f"order_by must be one of {', '.join(get_args(OrderBy))}")
    order = _order(model, order_by)
    values = prebuilt.values(terms) | {"page_size": limit + 1}
    place_on = ""
    if after is not None:
        if offset:
            raise ValueError("after and offset exclude each other")
        values |= order.place(after)
        place_on = execution.dialect_of(session, model).name
    if offset:
        values["page_offset"] = offset
    fetch_all = chunks.fetch_all if limit > chunks.SLICE else execution.fetch_all
    found = await fetch_all(session, _query(order, frozenset(terms), place_on, bool(offset)), values)
    items = found[:limit]
    return Page(items, order.cursor(items[-1]) if len(found) > limit else None)


async def stream(session: AsyncSession, model: type[Row], terms: Terms, *, order_by: OrderBy) -> AsyncIterator[Row]:
    """Yield every row, page by page: memory is constant, and the session is free for other statements meanwhile."""
    after: str | None = None
    while True:
        page = await fetch_page(session, model, terms, order_by=order_by, limit=MAX_LIMIT, after=after, offset=0)
        for row in page.items:
            yield row
        if (after := page.next) is None:
            return


class _Order:
    """One order of one list. The id breaks every tie, so that each row has one place."""

    def __init__(self, model: type[User] | type[Pet], order_by: str) -> None:
        self.model = model
        self._order_by = order_by
        self._descending = order_by.startswith("-")
        # A list in the order of names is in the order of folded names.
        name = order_by.removeprefix("-")
        self._attribute = "name_key" if name == "name" else name
        self._key = col(getattr(model, self._attribute))
        self._type = sa.inspect(model).columns[self._attribute].type
        self._id = col(model.id)

    @property
    def columns(self) -> list[sa.ColumnElement[Any]]:
        """Return what to order by."""
        columns = [self._id] if self._attribute == "id" else [self._key, self._id]
        return [column.desc() if self._descending else column.asc() for column in columns]

    def behind(self, dialect: str) -> sa.ColumnElement[bool]:
        """Return the condition for the rows behind place(), in the form that this engine's index serves."""
        further = operator.lt if self._descending else operator.gt
        place, place_id = sa.bindparam("place", type_=self._type), sa.bindparam("place_id", type_=sa.Integer())
        id_further: sa.ColumnElement[bool] = further(self._id, place_id)
        if self._attribute == "id":
            return id_further
        if dialect in ("mysql", "mariadb"):
            return sa.or_(further(self._key, place), sa.and_(self._key == place, id_further))
        condition: sa.ColumnElement[bool] = further(sa.tuple_(self._key, self._id), sa.tuple_(place, place_id))
        return condition

    def cursor(self, row: User | Pet) -> str:
        """Return the cursor of the rows behind this one."""
        value = getattr(row, self._attribute)
        place = [value.isoformat() if isinstance(value, datetime) else value, row.id]
        payload = json.dumps([self.model.__tablename__, self._order_by, *place]).encode()
        return base64.urlsafe_b64encode(_checksum(payload) + payload).rstrip(b"=").decode()

    def place(self, cursor: str) -> dict[str, Any]:
        """Return the parameters of behind()."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_")
            checksum, payload = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
            if checksum != _checksum(payload) or base64.urlsafe_b64encode(raw).rstrip(b"=") != cursor.encode():
                raise ValueError
            entity, order_by, value, row_id = json.loads(payload)
            if (entity, order_by) != (self.model.__tablename__, self._order_by) or not is_id(row_id):
                raise ValueError
            value = self._read(value)
        except (TypeError, ValueError, OverflowError, RecursionError):
            raise InvalidCursorError("the cursor is malformed, or of another list or another order") from None
        return {"place": value, "place_id": row_id}

    def _read(self, value: Any) -> Any:
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
def _query(order: _Order, terms: frozenset[tuple[str, str]], place_on: str, has_offset: bool) -> SelectOfScalar[Any]:
    model: Any = order.model
    query = select(model).where(*prebuilt.conditions(model, terms)).order_by(*order.columns)
    query = query.limit(sa.bindparam("page_size", type_=sa.Integer()))
    if place_on:
        query = query.where(order.behind(place_on))
    if has_offset:
        query = query.offset(sa.bindparam("page_offset", type_=sa.Integer()))
    return query


def _checksum(payload: bytes) -> bytes:
    # Against accidents, not attackers: a forged cursor only chooses where a list goes on.
    return hashlib.blake2s(payload, digest_size=_CHECKSUM_BYTES).digest()


def _check_number(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} must be an integer from {least} to {most}")
