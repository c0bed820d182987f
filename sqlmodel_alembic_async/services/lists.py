"""Lists of users and pets: pages, counts and streams, with the same filters."""

from collections.abc import AsyncIterator

from sqlmodel.ext.asyncio.session import AsyncSession
from typing_extensions import Unpack

from ..models import Pet, User
from ..plain_signatures import spell_out
from .statements import many_rows, pages
from .statements.filters import PetFilters, UserFilters, pet_terms, user_terms
from .statements.pages import OrderBy, Page


@spell_out(UserFilters, archived=False)
async def list_users(
    session: AsyncSession,
    *,
    order_by: OrderBy = "name",
    limit: int = 50,
    after: str | None = None,
    offset: int = 0,
    **filters: Unpack[UserFilters],
) -> Page[User]:
    """Return one page of users.

    Args:
        session: The session to read with.
        order_by: "name", "created_at", "updated_at" or "id"; a leading "-" reverses the order. The id breaks ties.
        limit: The size of the page: 1 to 1000.
        after: The `next` of the page before, or None for the first page. A deep page costs as much as the first.
        offset: How many users to skip, for numbered pages; each skipped row costs time. Not together with `after`.
        **filters: Which users; all filters must match, and None as a value is refused unless said otherwise.

            * `name_prefix`: the name begins with this text; case and compatibility forms do not matter.
            * `name_contains`: the name contains this text; reads every row.
            * `archived`: False (the default) leaves archived users out, True gives only them, None gives both.
            * `changed_since`: added or changed at this time or later: a datetime with a time zone, compared with
              `updated_at`. Deleted users leave no trace.

    Raises:
        TypeError: A filter is unknown.
        ValidationError: The value of a filter is not valid.
        ValueError: `order_by`, `limit` or `offset` is not allowed, or `after` and `offset` are both given.
        InvalidCursorError: `after` is malformed, or of another list or order.
        DatabaseError: The statement failed.

    """
    terms = user_terms(filters)
    return await pages.fetch_page(session, User, terms, order_by=order_by, limit=limit, after=after, offset=offset)


@spell_out(UserFilters, archived=False)
async def count_users(session: AsyncSession, **filters: Unpack[UserFilters]) -> int:
    """Return how many users match the filters of list_users().

    Raises:
        TypeError: A filter is unknown.
        ValidationError: The value of a filter is not valid.
        DatabaseError: The statement failed.

    """
    return await many_rows.count(session, User, user_terms(filters))


@spell_out(UserFilters, archived=False)
async def stream_users(
    session: AsyncSession, *, order_by: OrderBy = "name", **filters: Unpack[UserFilters]
) -> AsyncIterator[User]:
    """Yield every user that matches the filters of list_users(), in constant memory.

    It reads pages of 1,000 and is no snapshot: a user who changes meanwhile may come twice or not at all, unless the
    transaction is one, as `reading(snapshot=True)` is. To update users while iterating, use order_by="id".

    Raises:
        TypeError: A filter is unknown.
        ValidationError: The value of a filter is not valid.
        ValueError: `order_by` is not allowed.
        DatabaseError: A statement failed.

    """
    async for user in pages.stream(session, User, user_terms(filters), order_by=order_by):
        yield user


@spell_out(PetFilters, archived=False)
async def list_pets(
    session: AsyncSession,
    *,
    order_by: OrderBy = "name",
    limit: int = 50,
    after: str | None = None,
    offset: int = 0,
    **filters: Unpack[PetFilters],
) -> Page[Pet]:
    """Return one page of pets.

    Args:
        session: The session to read with.
        order_by: "name", "created_at", "updated_at" or "id"; a leading "-" reverses the order. The id breaks ties.
        limit: The size of the page: 1 to 1000.
        after: The `next` of the page before, or None for the first page. A deep page costs as much as the first.
        offset: How many pets to skip, for numbered pages; each skipped row costs time. Not together with `after`.
        **filters: Which pets; all filters must match.

            * `owner_id`: of this owner.
            * `ownerless`: True: without an owner; False: with one.
            * `species`, `breed`: exactly this text; case matters for the breed only. A blank text asks for pets
              without one.
            * `sex`: "male", "female" or "unknown".
            * `status`: "active", "missing" or "deceased".
            * `born_from`, `born_until`: born on this day or later, or earlier: a date, or text as YYYY-MM-DD.
            * `microchipped`: True: with a microchip; False: without.
            * `name_prefix`: the name begins with this text; case and compatibility forms do not matter.
            * `name_contains`: the name contains this text; reads every row.
            * `archived`: False (the default) leaves archived pets out, True gives only them, None gives both.
            * `changed_since`: added or changed at this time or later: a datetime with a time zone, compared with
              `updated_at`. Deleted pets leave no trace.

    Raises:
        TypeError: A filter is unknown.
        ValidationError: The value of a filter is not valid.
        ValueError: `order_by`, `limit` or `offset` is not allowed, or `after` and `offset` are both given.
        InvalidCursorError: `after` is malformed, or of another list or order.
        DatabaseError: The statement failed.

    """
    terms = pet_terms(filters)
    return await pages.fetch_page(session, Pet, terms, order_by=order_by, limit=limit, after=after, offset=offset)


@spell_out(PetFilters, archived=False)
async def count_pets(session: AsyncSession, **filters: Unpack[PetFilters]) -> int:
    """Return how many pets match the filters of list_pets().

    Raises:
        TypeError: A filter is unknown.
        ValidationError: The value of a filter is not valid.
        DatabaseError: The statement failed.

    """
    return await many_rows.count(session, Pet, pet_terms(filters))


@spell_out(PetFilters, archived=False)
async def stream_pets(
    session: AsyncSession, *, order_by: OrderBy = "name", **filters: Unpack[PetFilters]
) -> AsyncIterator[Pet]:
    """Yield every pet that matches the filters of list_pets(), in constant memory.

    It reads pages of 1,000 and is no snapshot: a pet that changes meanwhile may come twice or not at all, unless the
    transaction is one, as `reading(snapshot=True)` is. To update pets while iterating, use order_by="id".

    Raises:
        TypeError: A filter is unknown.
        ValidationError: The value of a filter is not valid.
        ValueError: `order_by` is not allowed.
        DatabaseError: A statement failed.

    """
    async for pet in pages.stream(session, Pet, pet_terms(filters), order_by=order_by):
        yield pet
