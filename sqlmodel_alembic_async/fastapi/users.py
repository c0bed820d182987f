"""The endpoints of users."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from ..databases import AsyncSession, Database
from ..models import User, UserCreate, UserUpdate
from ..public_shapes import UserPublic, UserPublicWithPets
from ..services import erasure, lists, merges, users
from ..services.duplicates import search
from . import answers
from .bodies import Merge
from .documentation import NEW_ROW, NOT_MODIFIED, PAGE, ROW, refusals
from .preconditions import IfMatch, IfNoneMatch, RowChange, require
from .queries import CreateQuery, DeleteUserQuery, DuplicatesQuery, GetUserQuery, Id, UserQuery
from .reports import Duplicates, MergeReportPublic, PagePublic

UserId = Annotated[Id, Path(description="The id of a user.")]


def add_users(router: APIRouter, database: Database, *, require_if_match: bool) -> None:
    """Add the endpoints of users. Each one opens a transaction of its own, and answers after the COMMIT."""
    change = RowChange(database, users.get_user)

    @router.post("", status_code=201, response_model=UserPublic, responses=NEW_ROW | refusals(409, 413))
    async def create_user(request: Request, data: UserCreate, query: Annotated[CreateQuery, Query()]) -> Response:
        """Add a user."""

        async def create(session: AsyncSession) -> User:
            return await users.create_user(session, data, on_similar=query.on_similar)

        return answers.created(request, await database.run_transaction(create))

    @router.get("", response_model=PagePublic[UserPublic], responses=PAGE | refusals())
    async def list_users(request: Request, query: Annotated[UserQuery, Query()]) -> Response:
        """List users, page by page: `next`, and the Link header, lead to the next page."""
        async with database.reading() as session:
            page = await lists.list_users(session, **query.model_dump())
        return answers.page(request, page)

    @router.get("/duplicates", response_model=Duplicates[UserPublic], responses=refusals())
    async def find_duplicate_users(query: Annotated[DuplicatesQuery, Query()]) -> Response:
        """Find users who may be the same person, the most similar first. It reads all users."""
        async with database.reading() as session:
            return await answers.duplicates(search.find_duplicate_users(session), query.limit)

    @router.get(
        "/{user_id}", response_model=UserPublicWithPets | UserPublic, responses=ROW | NOT_MODIFIED | refusals(404)
    )
    async def get_user(
        user_id: UserId, query: Annotated[GetUserQuery, Query()], if_none_match: IfNoneMatch = None
    ) -> Response:
        """Return a user, archived or not."""
        async with database.reading() as session:
            user = await users.get_user(session, user_id, with_pets=query.with_pets)
        response = answers.row_unless_current(user, if_none_match)  # It also refuses a malformed header.
        return answers.user_with_pets(user) if query.with_pets else response

    @router.patch("/{user_id}", response_model=UserPublic, responses=ROW | refusals(404, 409, 412, 413, 428))
    async def update_user(user_id: UserId, changes: UserUpdate, if_match: IfMatch = None) -> Response:
        """Change a user: a field that is left out stays, null clears it."""
        if require_if_match:
            require(if_match)
        return answers.row_response(await change(user_id, if_match, users.update_user, changes))

    @router.delete("/{user_id}", status_code=204, responses=refusals(404, 409, 412))
    async def delete_user(
        user_id: UserId, query: Annotated[DeleteUserQuery, Query()], if_match: IfMatch = None
    ) -> Response:
        """Delete a user; who has pets is refused, unless `pets` is "release"."""
        await change(user_id, if_match, users.delete_user, pets=query.pets)
        return Response(status_code=204)

    @router.post("/{user_id}/archive", response_model=UserPublic, responses=ROW | refusals(404, 412))
    async def archive_user(user_id: UserId, if_match: IfMatch = None) -> Response:
        """Hide a user from lists and searches."""
        return answers.row_response(await change(user_id, if_match, users.archive_user))

    @router.post("/{user_id}/restore", response_model=UserPublic, responses=ROW | refusals(404, 412))
    async def restore_user(user_id: UserId, if_match: IfMatch = None) -> Response:
        """Show an archived user in lists and searches again."""
        return answers.row_response(await change(user_id, if_match, users.restore_user))

    @router.post("/{user_id}/anonymise", response_model=UserPublic, responses=ROW | refusals(404, 412))
    async def anonymise_user(user_id: UserId, if_match: IfMatch = None) -> Response:
        """Erase the personal data of a user, and the notes and external_ref of the user's pets."""
        return answers.row_response(await change(user_id, if_match, erasure.anonymise_user))

    @router.post(
        "/{user_id}/merge", response_model=MergeReportPublic[UserPublic], responses=refusals(404, 409, 412, 413)
    )
    async def merge_users(user_id: UserId, merge: Merge, if_match: IfMatch = None) -> Response:
        """Fill the empty fields of a user from another user, move the pets, and delete the other user."""
        with merge.references(user_id):
            report = await change(user_id, if_match, merges.merge_users, merge.drop_id, dry_run=merge.dry_run)
        return answers.merge(report)
