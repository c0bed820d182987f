"""Export pets and their owners to a CSV file, in the format that import_pets() reads."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from typing_extensions import Unpack

from ...models import Pet, User
from ...plain_signatures import spell_out
from ..statements import chunks, prebuilt
from ..statements.chunks import BATCH_SIZE
from ..statements.filters import PetFilters, pet_terms
from ..statements.prebuilt import Terms
from .file_format import COLUMNS, OWNER, OWNER_FIELDS, PET_FIELDS
from .placeholders import escaped
from .targets import TextTarget, open_target

_LINE_END = "\r\n"
_TEXT_SIZE = 2**18  # Bounds the time between two awaits to a few milliseconds.


@spell_out(PetFilters, archived=False)
async def export_pets(session: AsyncSession, target: TextTarget, **filters: Unpack[PetFilters]) -> int:
    """Write pets, each with its owner, as CSV to a path or an open text file, and return the number of pets.

    The rows are read in batches, each in a statement of its own: use `database.reading(snapshot=True)` if changes
    between the batches must not be seen. Memory is constant. Owners without pets are not exported.

    A file at the path is replaced when the export is complete; the new file is readable by its owner only.

    Args:
        session: The session; pending changes are flushed first.
        target: A path, written as UTF-8, or a file opened in text mode.
        **filters: The filters of list_pets().

    Raises:
        TypeError: A filter is unknown, or the target is neither a path nor a file opened in text mode.
        ValidationError: The value of a filter is invalid.
        ValueError: The target is closed, or its encoding lacks a character of a row.
        OSError: The target cannot be opened or written.
        DatabaseError: The database failed, or the session is closed or used by another task.

    """
    terms = pet_terms(filters)
    exported = 0
    async with open_target(target) as write:
        await write(next(_csv_texts([COLUMNS])))
        async for batch in _batches(session, terms):
            for text in _csv_texts(await chunks.mapped(_cells, batch)):
                await write(text)
                await asyncio.sleep(0)
            exported += len(batch)
    return exported


def _csv_texts(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the rows as CSV, in texts of about _TEXT_SIZE characters."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=_LINE_END)
    for row in rows:
        writer.writerow(row)
        if text.tell() >= _TEXT_SIZE:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


async def _batches(session: AsyncSession, terms: Terms) -> AsyncIterator[Sequence[Any]]:
    columns = [col(Pet.id), *(getattr(Pet, name) for name in PET_FIELDS)]
    columns += [getattr(User, name).label(OWNER + name) for name in OWNER_FIELDS]
    # By id: so an export has the order of the file that was imported.
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
