"""Find the stored pets of a batch of rows, by their keys, and check the values of the rows."""

from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from ...models import Pet, PetCreate, PetUpdate, check_agreement
from ..statements import key_lookup
from ..statements.chunks import mapped
from ..statements.column_values import settle_birth_date, valid_values
from .file_rows import ImportedFile, ImportedRow, non_blank_values

_ANY_ID = 1  # The owner is not known yet; the checks only need to know that there is one.


async def find_pets(session: AsyncSession, file: ImportedFile, rows: list[ImportedRow]) -> None:
    """Set the stored pet and the valid values of each row, or reject the row."""
    stored = await key_lookup.fetch_by_keys(session, Pet, (key for row in rows for key in row.pet_keys))

    def find(row: ImportedRow) -> None:
        row.stored = file.find_stored(row, row.pet_keys, stored, "")
        if row.stored is not None:
            if (first := file.key_index.add_matched_pet(row.stored["id"], row.line)) != row.line:
                file.reject(row, row.pet_keys[0][0], f"matches the same pet as line {first}: remove one of the lines")
            _check_changes(file, row, row.stored)
        elif row.pet_values or not row.owner_values:
            with file.rejecting(row, ""):
                owner_id = _ANY_ID if row.owner_values else None
                row.pet_values = valid_values(PetCreate, {**row.pet_values, "owner_id": owner_id})

    await mapped(find, rows)


def _check_changes(file: ImportedFile, row: ImportedRow, stored: dict[str, Any]) -> None:
    values = row.pet_values
    acquired_on = {"acquired_on": values.pop("acquired_on")} if "acquired_on" in values else {}
    with file.rejecting(row, ""):
        row.pet_values = non_blank_values(PetUpdate.model_validate(values)) | acquired_on
        if "birth_date" in row.pet_values:
            settle_birth_date(row.pet_values, stored)
        owner_id = _ANY_ID if row.owner_values else stored["owner_id"]
        check_agreement({**stored, **row.pet_values, "owner_id": owner_id})
