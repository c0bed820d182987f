"""What callers do with users."""

from collections.abc import AsyncIterator, Iterable
from typing import Literal

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.orm import selectinload
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from typing_extensions import Unpack

from ..errors import ConflictError, UserHasPetsError, UserNotFoundError
from ..fields import Email, is_id
from ..models import Pet, User, UserCreate, UserUpdate
from .pets import change_pets_of
from .statements import execution, many_rows, one_row, pages
from .statements.filters import FILTER_CONFIG, RowFilters, filter_adapter, row_terms, validated
from .statements.one_row import OnSimilar
from .statements.pages import OrderBy, Page
from .statements.prebuilt import Terms


class UserFilters(RowFilters, total=False):
    """What narrows a list of users."""


# Asked in the same statement: a refusal by the foreign key would end the caller's transaction.
_HAS_NO_PETS = ~select(Pet.id).where(col(Pet.owner_id) == sa.bindparam("row_id")).exists()

_FILTERS = filter_adapter(UserFilters)
_EMAIL: TypeAdapter[str | None] = TypeAdapter(Email, config=FILTER_CONFIG)


async def create_user(session: AsyncSession, data: UserCreate, *, on_similar: OnSimilar = "allow") -> User:
    """Add a user; raise AlreadyExistsError if its e-mail or external_ref is taken.

    With on_similar="error", look first, and raise SimilarExistsError for what find_duplicate_users() would show.
    """
    if on_similar != "allow":
        from .duplicates.search import refuse_similar  # nobody else waits for it

        await refuse_similar(session, User, one_row.expect(UserCreate, data), on_similar)
    return await one_row.insert(session, User, one_row.expect(UserCreate, data))


async def create_users(session: AsyncSession, users: Iterable[UserCreate]) -> int:
    """Add users batch by batch, and return how many."""
    return await many_rows.insert_many(session, User, UserCreate, users)


async def get_user(session: AsyncSession, user_id: int, *, with_pets: bool = False) -> User:
    """Return a user; raise UserNotFoundError if there is none."""
    options = [selectinload(User.pets)] if with_pets else []  # type: ignore[arg-type]  # SQLModel types it as a list
    return _found(await one_row.fetch_by_id(session, User, user_id, *options), user_id)


async def find_user_by_email(session: AsyncSession, email: str) -> User | None:
    """Return the user with this e-mail, in any case of its letters, or None."""
    address = _EMAIL.validate_python(email)
    if address is None:
        return None
    return await execution.fetch_one(session, select(User).where(col(User.email) == address))


async def list_users(
    session: AsyncSession,
    *,
    order_by: OrderBy = "name",
    limit: int = 50,
    after: str | None = None,
    offset: int = 0,
    **filters: Unpack[UserFilters],
) -> Page[User]:
    """Return one page of users; `after` is the `next` of the page before it."""
    terms = _terms(filters)
    return await pages.fetch_page(session, User, terms, order_by=order_by, limit=limit, after=after, offset=offset)


async def count_users(session: AsyncSession, **filters: Unpack[UserFilters]) -> int:
    """Return how many users there are."""
    return await many_rows.count(session, User, _terms(filters))


async def stream_users(
    session: AsyncSession, *, order_by: OrderBy = "name", **filters: Unpack[UserFilters]
) -> AsyncIterator[User]:
    """Yield every user in constant memory. Who changes what it yields streams by id: those rows keep their place."""
    async for user in pages.stream(session, User, _terms(filters), order_by=order_by):
        yield user


async def update_user(
    session: AsyncSession, user_id: int, changes: UserUpdate, *, expected_version: int | None = None
) -> User:
    """Change the columns given; raise StaleVersionError if the user is no longer at the expected version."""
    one_row.expect(UserUpdate, changes)
    return _found(await one_row.patch(session, User, user_id, changes, expected_version), user_id)


async def archive_user(session: AsyncSession, user_id: int) -> User:
    """Hide a user from lists and searches; archived again, it keeps its first moment."""
    return _found(await one_row.archive(session, User, user_id), user_id)


async def restore_user(session: AsyncSession, user_id: int) -> User:
    """Show an archived user again."""
    return _found(await one_row.update(session, User, user_id, {"archived_at": None}), user_id)


async def delete_user(session: AsyncSession, user_id: int, *, pets: Literal["refuse", "release"] = "refuse") -> None:
    """Delete a user; one who has pets is refused with UserHasPetsError, or releases them first."""
    if pets not in ("refuse", "release"):
        raise ValueError('pets must be "refuse" or "release"')
    if pets == "release" and is_id(user_id):
        await change_pets_of(session, user_id, {"owner_id": None, "acquired_on": None})
    try:
        if await one_row.delete(session, User, user_id, _HAS_NO_PETS):
            return
    except UserHasPetsError as error:
        if (
            execution.dialect_of(session, User).name == "sqlite"
        ):  # It names no key, and there nobody adds a pet meanwhile.
            raise ConflictError("a row of another table refers to this one") from error.__cause__
        raise UserHasPetsError(user_id) from error.__cause__
    _found(await one_row.fetch_as_written(session, User, user_id), user_id)
    raise UserHasPetsError(user_id)


def _terms(filters: UserFilters) -> Terms:
    return row_terms(validated(_FILTERS, filters, UserFilters.__annotations__))


def _found(user: User | None, user_id: int) -> User:
    if user is None:
        raise UserNotFoundError(user_id)
    return user
