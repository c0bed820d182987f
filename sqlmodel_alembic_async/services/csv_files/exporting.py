"""Export: pets with their owners as a CSV file, in the format that import_pets() reads."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from typing_extensions import Unpack

from ...models import Pet, User
from ..pets import PetFilters, pet_terms
from ..statements import chunks, prebuilt
from ..statements.chunks import BATCH_SIZE
from ..statements.prebuilt import Terms
from .file_format import COLUMNS, OWNER, OWNER_FIELDS, PET_FIELDS
from .placeholders import escaped
from .sources import Source
from .targets import writable

_LINE_END = "\r\n"


async def export_pets(session: AsyncSession, target: Source, **filters: Unpack[PetFilters]) -> int:
    """Write pets, each with its owner, to a path or an open text file, and return how many; memory is constant.

    A path is replaced when everything is written, and is its user's alone. Owners without pets are not in it.
    """
    terms = pet_terms(filters)
    exported = 0
    async with writable(target) as write:
        await write(_lines([COLUMNS]))
        async for batch in _batches(session, terms):
            await write(_lines(await chunks.mapped(_cells, batch)))
            exported += len(batch)
    return exported


def _lines(rows: Iterable[Sequence[str]]) -> str:
    lines = io.StringIO(newline="")
    csv.writer(lines, lineterminator=_LINE_END).writerows(rows)
    return lines.getvalue()


async def _batches(session: AsyncSession, terms: Terms) -> AsyncIterator[Sequence[Any]]:
    columns = [col(Pet.id), *(getattr(Pet, name) for name in PET_FIELDS)]
    columns += [getattr(User, name).label(OWNER + name) for name in OWNER_FIELDS]
    # In the order of their ids: imported in this order, they are exported in it again.
    query = sa.select(*columns).outerjoin(User, col(User.id) == col(Pet.owner_id))
    query = query.where(col(Pet.id) > sa.bindparam("last_id"), *prebuilt.conditions(Pet, terms))
    query = query.order_by(col(Pet.id)).limit(BATCH_SIZE)
    values = prebuilt.values(terms)
    last_id = 0
    while True:
        batch = await chunks.fetch_all(session, query, {**values, "last_id": last_id})
        if not batch:
            return
        yield batch
        last_id = batch[-1][0]


def _cells(row: Sequence[Any]) -> list[str]:
    return [_cell(field, value) for field, value in zip(COLUMNS, row[1:], strict=True)]


def _cell(field: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    return escaped(field, str(value))
