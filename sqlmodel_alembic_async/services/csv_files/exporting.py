"""Export pets and their owners to a CSV file, in the format that import_pets() reads."""

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
from .targets import TextTarget, open_target

_LINE_END = "\r\n"


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
        TypeError: A filter is unknown, or the target is opened in binary mode.
        ValidationError: The value of a filter is invalid, or a pending change is.
        ValueError: The target is closed.
        UnicodeEncodeError: The encoding of an open target lacks a character.
        OSError: The target cannot be opened or written.
        DatabaseError: The database failed, or the session is closed or used by another task.
        ConflictError: A pending change conflicts with stored rows.
        UserNotFoundError: A pending change refers to an owner who does not exist.
        InvalidValueError: The database refuses a value of a pending change.

    """
    terms = pet_terms(filters)
    exported = 0
    async with open_target(target) as write:
        await write(_csv_text([COLUMNS]))
        async for batch in _batches(session, terms):
            await write(_csv_text(await chunks.mapped(_cells, batch)))
            exported += len(batch)
    return exported


def _csv_text(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=_LINE_END).writerows(rows)
    return text.getvalue()


async def _batches(session: AsyncSession, terms: Terms) -> AsyncIterator[Sequence[Any]]:
    columns = [col(Pet.id), *(getattr(Pet, name) for name in PET_FIELDS)]
    columns += [getattr(User, name).label(OWNER + name) for name in OWNER_FIELDS]
    # By id: an import adds the rows in the order of the file, so that its export has the same order.
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
