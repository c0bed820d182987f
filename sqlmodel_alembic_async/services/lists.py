"""Lists of users and pets: pages, counts and streams, with the same filters."""

from collections.abc import AsyncIterator

from sqlmodel.ext.asyncio.session import AsyncSession
from typing_extensions import Unpack

from ..models import Pet, User
from ..plain_signatures import spell_out
from .statements import many_rows, pages, related
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
    with_pets: bool = False,
    **filters: Unpack[UserFilters],
) -> Page[User]:
    """Return one page of users.

    Args:
        session: The session to read with.
        order_by: "name", "created_at", "updated_at" or "id"; a leading "-" reverses the order. The id breaks ties.
        limit: The size of the page: 1 to 1000.
        after: The `next` of the page before, or None for the first page. A deep page costs as much as the first.
        offset: How many users to skip, for numbered pages; each skipped row costs time. Not together with `after`.
        with_pets: Load `user.pets` of each user, archived pets too, in one more statement.
        **filters: Which users; all filters must match. None does not filter; a blank text is refused.

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
    load = related.load_pets if with_pets else None
    return await pages.fetch_page(
        session, User, terms, order_by=order_by, limit=limit, after=after, offset=offset, load=load
    )


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
    session: AsyncSession, *, order_by: OrderBy = "name", with_pets: bool = False, **filters: Unpack[UserFilters]
) -> AsyncIterator[User]:
    """Yield every user that matches the filters of list_users(), in constant memory.

    It reads pages of 1,000 and is no snapshot: a user who changes meanwhile may come twice or not at all. To avoid
    this, use `reading(snapshot=True)`. To update users while iterating, use order_by="id".
    `with_pets` loads `user.pets`, in one more statement for each 1,000.

    Raises:
        TypeError: A filter is unknown.
        ValidationError: The value of a filter is not valid.
        ValueError: `order_by` is not allowed.
        DatabaseError: A statement failed.

    """
    load = related.load_pets if with_pets else None
    async for user in pages.stream(session, User, user_terms(filters), order_by=order_by, load=load):
        yield user


@spell_out(PetFilters, archived=False)
async def list_pets(
    session: AsyncSession,
    *,
    order_by: OrderBy = "name",
    limit: int = 50,
    after: str | None = None,
    offset: int = 0,
    with_owner: bool = False,
    **filters: Unpack[PetFilters],
) -> Page[Pet]:
    """Return one page of pets.

    Args:
        session: The session to read with.
        order_by: "name", "created_at", "updated_at" or "id"; a leading "-" reverses the order. The id breaks ties.
        limit: The size of the page: 1 to 1000.
        after: The `next` of the page before, or None for the first page. A deep page costs as much as the first.
        offset: How many pets to skip, for numbered pages; each skipped row costs time. Not together with `after`.
        with_owner: Load `pet.owner` of each pet, archived owners too, in one more statement; None without an owner.
        **filters: Which pets; all filters must match. None does not filter; a blank text is refused.

            * `owner_id`: of this owner.
            * `ownerless`: True: without an owner; False: with one.
            * `species`, `breed`: exactly this text; case matters for the breed only.
            * `species_known`, `breed_known`: True: with a species, or a breed; False: without.
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
    load = related.load_owners if with_owner else None
    return await pages.fetch_page(
        session, Pet, terms, order_by=order_by, limit=limit, after=after, offset=offset, load=load
    )


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
    session: AsyncSession, *, order_by: OrderBy = "name", with_owner: bool = False, **filters: Unpack[PetFilters]
) -> AsyncIterator[Pet]:
    """Yield every pet that matches the filters of list_pets(), in constant memory.

    It reads pages of 1,000 and is no snapshot: a pet that changes meanwhile may come twice or not at all. To avoid
    this, use `reading(snapshot=True)`. To update pets while iterating, use order_by="id".
    `with_owner` loads `pet.owner`, in one more statement for each 1,000.

    Raises:
        TypeError: A filter is unknown.
        ValidationError: The value of a filter is not valid.
        ValueError: `order_by` is not allowed.
        DatabaseError: A statement failed.

    """
    load = related.load_owners if with_owner else None
    async for pet in pages.stream(session, Pet, pet_terms(filters), order_by=order_by, load=load):
        yield pet
