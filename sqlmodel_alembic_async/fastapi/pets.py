"""The endpoints of pets."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from ..databases import AsyncSession, Database
from ..errors import UserNotFoundError
from ..microchips import MicrochipNumber
from ..microchips import describe_microchip as describe
from ..models import Pet, PetCreate, PetUpdate
from ..public_shapes import PetPublic
from ..services import lists, merges, pets, statistics
from ..services.duplicates import search
from . import answers
from .bodies import Merge, Ownership
from .documentation import NEW_ROW, NOT_MODIFIED, PAGE, ROW, refusals
from .preconditions import IfMatch, IfNoneMatch, RowChange, require
from .problems import unknown_reference
from .queries import CreateQuery, DuplicatesQuery, Id, PetFilterQuery, PetQuery
from .reports import Duplicates, MergeReportPublic, MicrochipPublic, PagePublic, PetStatisticsPublic

PetId = Annotated[Id, Path(description="The id of a pet.")]


def add_pets(router: APIRouter, database: Database, *, require_if_match: bool) -> None:
    """Add the endpoints of pets. Each one opens a transaction of its own, and answers after the COMMIT."""
    change = RowChange(database, pets.get_pet)

    @router.post("", status_code=201, response_model=PetPublic, responses=NEW_ROW | refusals(409, 413))
    async def create_pet(request: Request, data: PetCreate, query: Annotated[CreateQuery, Query()]) -> Response:
        """Add a pet."""

        async def create(session: AsyncSession) -> Pet:
            return await pets.create_pet(session, data, on_similar=query.on_similar)

        try:
            return answers.created(request, await database.run_transaction(create))
        except UserNotFoundError as error:
            raise unknown_reference("owner_id", error) from None

    @router.get("", response_model=PagePublic[PetPublic], responses=PAGE | refusals())
    async def list_pets(request: Request, query: Annotated[PetQuery, Query()]) -> Response:
        """List pets, page by page: `next`, and the Link header, lead to the next page."""
        async with database.reading() as session:
            page = await lists.list_pets(session, **query.model_dump())
        return answers.page(request, page)

    @router.get("/statistics", response_model=PetStatisticsPublic, responses=refusals())
    async def pet_statistics(query: Annotated[PetFilterQuery, Query()]) -> Response:
        """Count the pets that match the filters, in total and by group."""
        async with database.reading() as session:
            return answers.statistics(await statistics.pet_statistics(session, **query.model_dump()))

    @router.get("/duplicates", response_model=Duplicates[PetPublic], responses=refusals())
    async def find_duplicate_pets(query: Annotated[DuplicatesQuery, Query()]) -> Response:
        """Find pets that may be the same animal, the most similar first. It reads all pets."""
        async with database.reading() as session:
            return await answers.duplicates(search.find_duplicate_pets(session), query.limit)

    @router.get("/{pet_id}", response_model=PetPublic, responses=ROW | NOT_MODIFIED | refusals(404))
    async def get_pet(pet_id: PetId, if_none_match: IfNoneMatch = None) -> Response:
        """Return a pet, archived or not."""
        async with database.reading() as session:
            pet = await pets.get_pet(session, pet_id)
        return answers.row_unless_current(pet, if_none_match)

    @router.patch("/{pet_id}", response_model=PetPublic, responses=ROW | refusals(404, 409, 412, 413, 428))
    async def update_pet(pet_id: PetId, changes: PetUpdate, if_match: IfMatch = None) -> Response:
        """Change a pet: a field that is left out stays, null clears it. PUT .../owner changes the owner."""
        if require_if_match:
            require(if_match)
        return answers.row_response(await change(pet_id, if_match, pets.update_pet, changes))

    @router.delete("/{pet_id}", status_code=204, responses=refusals(404, 409, 412))
    async def delete_pet(pet_id: PetId, if_match: IfMatch = None) -> Response:
        """Delete a pet."""
        await change(pet_id, if_match, pets.delete_pet)
        return Response(status_code=204)

    @router.put("/{pet_id}/owner", response_model=PetPublic, responses=ROW | refusals(404, 409, 412, 413))
    async def transfer_pet(pet_id: PetId, data: Ownership, if_match: IfMatch = None) -> Response:
        """Give a pet another owner, or none."""
        try:
            return answers.row_response(await change(pet_id, if_match, pets.transfer_pet, data.owner_id, on=data.on))
        except UserNotFoundError as error:
            raise unknown_reference("owner_id", error) from None

    @router.post("/{pet_id}/archive", response_model=PetPublic, responses=ROW | refusals(404, 412))
    async def archive_pet(pet_id: PetId, if_match: IfMatch = None) -> Response:
        """Hide a pet from lists and searches."""
        return answers.row_response(await change(pet_id, if_match, pets.archive_pet))

    @router.post("/{pet_id}/restore", response_model=PetPublic, responses=ROW | refusals(404, 412))
    async def restore_pet(pet_id: PetId, if_match: IfMatch = None) -> Response:
        """Show an archived pet in lists and searches again."""
        return answers.row_response(await change(pet_id, if_match, pets.restore_pet))

    @router.post("/{pet_id}/merge", response_model=MergeReportPublic[PetPublic], responses=refusals(404, 409, 412, 413))
    async def merge_pets(pet_id: PetId, merge: Merge, if_match: IfMatch = None) -> Response:
        """Fill the empty fields of a pet from another pet, and delete the other pet."""
        with merge.references(pet_id):
            report = await change(pet_id, if_match, merges.merge_pets, merge.drop_id, dry_run=merge.dry_run)
        return answers.merge(report)


def add_microchips(router: APIRouter, database: Database) -> None:
    """Add the endpoint of microchip numbers."""

    @router.get("/{number}", response_model=MicrochipPublic, responses=refusals())
    async def describe_microchip(
        number: Annotated[MicrochipNumber, Path(description="The number, with or without spaces.")],
    ) -> Response:
        """Describe a microchip number, and return the pet that has it, archived or not."""
        description = describe(number)
        async with database.reading() as session:
            pet = await pets.find_pet_by_microchip(session, number)
        return answers.microchip(description, pet)
