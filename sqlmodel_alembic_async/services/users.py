"""Users: create, read, change, archive and delete one. `lists.py` lists them."""

from collections.abc import Iterable
from typing import Literal

import sqlalchemy as sa
from pydantic import ConfigDict, TypeAdapter
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ..errors import ConflictError, UserHasPetsError, UserNotFoundError
from ..fields import Email, is_id
from ..models import Pet, User, UserCreate, UserUpdate
from .statements import execution, many_rows, one_row, related, row_locks
from .statements.filters import FILTER_CONFIG
from .statements.one_row import OnSimilar
from .statements.owned_pets import update_pets_of

# Checked in the DELETE itself: a violated foreign key would end the caller's transaction.
_HAS_NO_PETS = ~select(Pet.id).where(col(Pet.owner_id) == sa.bindparam("row_id")).exists()

_EMAIL: TypeAdapter[str | None] = TypeAdapter(Email, config=ConfigDict(title="email", **FILTER_CONFIG))


async def create_user(session: AsyncSession, data: UserCreate, *, on_similar: OnSimilar = "allow") -> User:
    """Add a user and return it with its id.

    The row is written by one INSERT. If the application listens to events of SQLAlchemy's unit of work, such as
    before_insert or after_flush, it is written by a flush, which fires them.

    Args:
        session: The session to write with; the caller commits.
        data: The values of the new user.
        on_similar: "allow" inserts in any case. "error" first looks for users that find_duplicate_users() would put
            into one group with the new one, and inserts only if there are none. It locks nothing: two transactions at
            the same time may insert similar users.

    Raises:
        AlreadyExistsError: Another user has this `email` or `external_ref`; `field` names it.
        SimilarExistsError: Similar users exist and on_similar is "error"; `candidates` holds them.
        TypeError: `data` is not a UserCreate, or has fields that a UserCreate does not have.
        ValidationError: `data` was changed to values that the shape refuses.
        ValueError: `on_similar` is neither "allow" nor "error".
        DatabaseError: The statement failed.

    """
    data = one_row.expect(UserCreate, data)
    if on_similar != "allow":
        from .duplicates.search import refuse_similar

        await refuse_similar(session, User, data, on_similar)
    return await one_row.insert(session, User, data)


async def create_users(session: AsyncSession, users: Iterable[UserCreate]) -> int:
    """Add users in batches of 1,000 and return how many were added.

    Memory stays constant, however many there are. After an error no batch is kept: the transaction, or the savepoint
    around the call, can only be rolled back.

    Args:
        session: The session to write with; the caller commits.
        users: The values of the new users, from any iterable or generator.

    Raises:
        AlreadyExistsError: Another user has the `email` or `external_ref` of one of them; `field` names it.
        TypeError: An item is not a UserCreate, or has fields that a UserCreate does not have.
        ValidationError: An item was changed to values that the shape refuses.
        DatabaseError: A statement failed.

    """
    return await many_rows.insert_many(session, User, UserCreate, users)


async def get_user(session: AsyncSession, user_id: int, *, with_pets: bool = False, for_update: bool = False) -> User:
    """Return a user, archived or not, as the database holds it now.

    Args:
        session: The session to read with.
        user_id: The id of the user.
        with_pets: Load `user.pets`, in a second statement. Without it, reading `user.pets` raises InvalidRequestError.
        for_update: Lock the user, but not the pets, until the end of the transaction, to change the user by what was
            read: until then, another transaction waits to change or to lock it. SQLite locks the whole database for
            other writers, which a transaction() does at its beginning; another session does it now, in one more
            statement.

    Raises:
        UserNotFoundError: No user has this id.
        TypeError: `user_id` is not an int.
        StorageError: `for_update` is true, and the session is read-only, as that of reading() is.
        TransactionConflictError: `for_update` is true, and the lock was not released in time, or the transaction read
            before and cannot see what others changed since.
        DatabaseError: The statement failed.

    """
    fetch = row_locks.fetch_locked if for_update else one_row.fetch_by_id
    user = _found(await fetch(session, User, user_id), user_id)
    if with_pets:
        await related.load_pets(session, [user])
    return user


async def find_user_by_email(session: AsyncSession, email: str) -> User | None:
    """Return the user with this e-mail address, archived or not, or None. Case does not matter; blank finds None.

    Raises:
        ValidationError: `email` is not a valid e-mail address.
        DatabaseError: The statement failed.

    """
    address = _EMAIL.validate_python(email)
    if address is None:
        return None
    return await execution.fetch_one(session, select(User).where(col(User.email) == address))


async def update_user(
    session: AsyncSession, user_id: int, changes: UserUpdate, *, expected_version: int | None = None
) -> User:
    """Change the fields that `changes` sets, and return the user.

    Args:
        session: The session to write with; the caller commits.
        user_id: The id of the user.
        changes: The new values: an omitted field stays, None clears it.
        expected_version: The `version` that the caller read; None changes any version.

    Raises:
        UserNotFoundError: No user has this id.
        StaleVersionError: The user is not at the expected version.
        AlreadyExistsError: Another user has this `email` or `external_ref`; `field` names it.
        TypeError: `changes` is not a UserUpdate, or has fields that a UserUpdate does not have; or an id or a version
            is not an int.
        ValidationError: `changes` was changed to values that the shape refuses.
        DatabaseError: The statement failed.

    """
    changes = one_row.expect(UserUpdate, changes)
    return _found(await one_row.patch(session, User, user_id, changes, expected_version), user_id)


async def archive_user(session: AsyncSession, user_id: int) -> User:
    """Hide a user from lists and searches, and return it. Idempotent: keeps the first `archived_at`.

    Raises:
        UserNotFoundError: No user has this id.
        TypeError: `user_id` is not an int.
        DatabaseError: The statement failed.

    """
    return _found(await one_row.archive(session, User, user_id), user_id)


async def restore_user(session: AsyncSession, user_id: int) -> User:
    """Show an archived user in lists and searches again, and return it.

    Raises:
        UserNotFoundError: No user has this id.
        TypeError: `user_id` is not an int.
        DatabaseError: The statement failed.

    """
    return _found(await one_row.update(session, User, user_id, {"archived_at": None}), user_id)


async def delete_user(session: AsyncSession, user_id: int, *, pets: Literal["refuse", "release"] = "refuse") -> None:
    """Delete a user.

    Args:
        session: The session to write with; the caller commits.
        user_id: The id of the user.
        pets: "refuse" deletes no user who has pets. "release" first leaves the pets without an owner.

    Raises:
        UserNotFoundError: No user has this id.
        UserHasPetsError: The user has pets, and `pets` is "refuse".
        ConflictError: A row of a host application's table refers to the user.
        TypeError: `user_id` is not an int.
        ValueError: `pets` is neither "refuse" nor "release".
        DatabaseError: A statement failed.

    """
    if pets not in ("refuse", "release"):
        raise ValueError('pets must be "refuse" or "release"')
    if pets == "release" and is_id(user_id):
        await update_pets_of(session, user_id, {"owner_id": None, "acquired_on": None})
    try:
        if await one_row.delete(session, User, user_id, _HAS_NO_PETS):
            return
    except UserHasPetsError as error:
        # SQLite does not name the key. It has one writer: no pet was added since the check, so another table refers.
        if execution.dialect_of(session, User).name == "sqlite":
            raise ConflictError("a row of another table refers to this one") from error.__cause__
        raise UserHasPetsError(user_id) from error.__cause__
    _found(await one_row.fetch_as_written(session, User, user_id), user_id)
    raise UserHasPetsError(user_id)


def _found(user: User | None, user_id: int) -> User:
    if user is None:
        raise UserNotFoundError(user_id)
    return user
