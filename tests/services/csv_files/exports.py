"""What the tests of exports share."""

import csv
import io

from sqlmodel_alembic_async import AsyncSession, export_pets

HEADER = (
    "name,species,breed,color,sex,neutered,birth_date,birth_date_estimated,weight_g,microchip,status,deceased_on,"
    "acquired_on,notes,external_ref,owner_name,owner_email,owner_phone,owner_address,owner_city,owner_postal_code,"
    "owner_notes,owner_external_ref\r\n"
)


async def exported(session: AsyncSession, **filters: object) -> list[dict[str, str]]:
    file = io.StringIO(newline="")
    number = await export_pets(session, file, **filters)  # type: ignore[arg-type]
    found = list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))
    assert len(found) == number
    return found
