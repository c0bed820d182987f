"""Export: pets with their owners as a CSV file, in the format that import_pets() reads."""

import csv
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TextIO

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from typing_extensions import Unpack

from ..models import Pet, User
from . import rows, statements
from .csv_files import COLUMNS, OWNER, OWNER_FIELDS, PET_FIELDS, Source, defused
from .pets import PetFilters, pet_terms
from .statements import Terms

_BATCH = 1000
_LINE_END = "\r\n"


async def export_pets(session: AsyncSession, target: Source, **filters: Unpack[PetFilters]) -> int:
    """Write pets, each with its owner, to a path or an open text file, and return how many; memory is constant.

    A path is replaced when everything is written, and is its user's alone. Owners without pets are not in it.
    """
    terms = pet_terms(filters)
    exported = 0
    with _writable(target) as file:
        writer = csv.writer(file, lineterminator=_LINE_END)
        writer.writerow(COLUMNS)
        async for batch in _batches(session, terms):
            writer.writerows(map(_cells, batch))
            exported += len(batch)
    return exported


async def _batches(session: AsyncSession, terms: Terms) -> AsyncIterator[Sequence[Any]]:
    columns = [col(Pet.id), *(getattr(Pet, name) for name in PET_FIELDS)]
    columns += [getattr(User, name).label(OWNER + name) for name in OWNER_FIELDS]
    # In the order of their ids: imported in this order, they are exported in it again.
    query = sa.select(*columns).outerjoin(User, col(User.id) == col(Pet.owner_id)).order_by(col(Pet.id)).limit(_BATCH)
    query = query.where(col(Pet.id) > sa.bindparam("last_id"), *statements.conditions(Pet, terms))
    values = statements.values(terms)
    last_id = 0
    while True:
        async with rows.statement(session):
            parameters = {**values, "last_id": last_id}
            batch = (await session.exec(query, params=parameters)).all()  # type: ignore[call-overload]  # SQLAlchemy's own
        if not batch:
            return
        yield batch
        last_id = batch[-1][0]


def _cells(row: Sequence[Any]) -> list[str]:
    return [_cell(value) for value in row[1:]]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    return defused(str(value))


@contextmanager
def _writable(target: Source) -> Iterator[TextIO]:
    if not isinstance(target, str | os.PathLike):
        yield target
        return
    path = Path(target)
    if path.exists() and not path.is_file():  # A device, or a pipe: there is nothing to replace.
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
        return
    path = path.resolve()  # What a link points to is replaced, not the link.
    # Who exports again must not lose the last export where this one fails.
    with NamedTemporaryFile("w", encoding="utf-8", newline="", dir=path.parent, delete=False) as part:
        try:
            yield part  # type: ignore[misc]  # it is a text file
            part.close()
            os.replace(part.name, path)
        except BaseException:
            os.unlink(part.name)
            raise
