"""Merge two rows of the same user, or of the same pet, into one."""

from dataclasses import dataclass
from typing import Any, Generic

from pydantic import ValidationError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ..errors import NotFoundError, PetNotFoundError, TransactionConflictError, UserHasPetsError, UserNotFoundError
from ..fields import is_id
from ..models import Pet, PetCreate, Row, User, UserCreate
from .pets import delete_pet
from .statements import execution, many_rows, one_row
from .statements.owned_pets import update_pets_of
from .users import delete_user

# Filled from the same row, or not at all.
_JOINT_FIELDS = (
    ("address", "city", "postal_code"),
    ("birth_date", "birth_date_estimated"),
    ("owner_id", "acquired_on"),
    ("status", "deceased_on"),
)
_GROUPS = {name: group for group in _JOINT_FIELDS for name in group}


@dataclass(frozen=True, slots=True)
class MergeReport(Generic[Row]):
    """What a merge did, or would do in a dry run.

    Attributes:
        kept: The row that stays; in a dry run, it is unchanged.
        dropped_id: The id of the row that is deleted.
        filled: The fields that were blank in the kept row, with the values from the dropped row.
        conflicts: The fields whose values differ, each with the kept and the dropped value.
        moved_pets: The number of pets that get the kept user as their owner; 0 for a merge of pets.
        dry_run: Whether nothing was written.

    """

    kept: Row
    dropped_id: int
    filled: dict[str, Any]
    conflicts: dict[str, tuple[Any, Any]]
    moved_pets: int
    dry_run: bool


async def merge_users(session: AsyncSession, keep_id: int, drop_id: int, *, dry_run: bool = False) -> MergeReport[User]:
    """Fill the blank fields of one user from another, move the other's pets, and delete the other.

    On a server, both users are locked until the end of the transaction; a dry run locks and writes nothing. The kept
    user keeps its archived_at and created_at, and moved pets keep their acquired_on.

    Args:
        session: The session; pending changes are flushed first.
        keep_id: The id of the user to keep.
        drop_id: The id of the user to delete.
        dry_run: Only report what the merge would do.

    Raises:
        UserNotFoundError: One of the users does not exist.
        ValueError: Both ids are the same.
        TypeError: An id is not an integer.
        ValidationError: The stored values of the kept user are invalid.
        TransactionConflictError: Another transaction conflicted; for example, it gave the dropped user a pet.
        ConflictError: A row of another table refers to the dropped user.
        DatabaseError: The database failed, or the session is closed or used by another task.

    """
    kept, dropped = await _fetch_both(session, User, UserNotFoundError, keep_id, drop_id, locked=not dry_run)
    filled, conflicts = _merged_values(UserCreate, kept, dropped)
    if dry_run:
        pets = await many_rows.count(session, Pet, {("owner_id", "eq"): drop_id})
        return MergeReport(kept, drop_id, filled, conflicts, pets, dry_run)
    moved = await update_pets_of(session, drop_id, {"owner_id": keep_id})
    try:
        await delete_user(session, drop_id)  # Before the update, which may give its unique values to the kept user.
    except UserHasPetsError as error:
        # In REPEATABLE READ, the statement that moved the pets did not see a pet from a later transaction.
        raise TransactionConflictError(
            "another transaction gave the user a pet in the meantime: try again"
        ) from error.__cause__
    if filled:
        kept = await one_row.update(session, User, keep_id, filled) or kept
    return MergeReport(kept, drop_id, filled, conflicts, moved, dry_run)


async def merge_pets(session: AsyncSession, keep_id: int, drop_id: int, *, dry_run: bool = False) -> MergeReport[Pet]:
    """Fill the blank fields of one pet from another, and delete the other.

    On a server, both pets are locked until the end of the transaction; a dry run locks and writes nothing. The kept
    pet keeps its archived_at and created_at.

    Args:
        session: The session; pending changes are flushed first.
        keep_id: The id of the pet to keep.
        drop_id: The id of the pet to delete.
        dry_run: Only report what the merge would do.

    Raises:
        PetNotFoundError: One of the pets does not exist.
        ValueError: Both ids are the same.
        TypeError: An id is not an integer.
        ValidationError: The stored values of the kept pet are invalid.
        ConflictError: A row of another table refers to the dropped pet.
        DatabaseError: The database failed, or the session is closed or used by another task.

    """
    kept, dropped = await _fetch_both(session, Pet, PetNotFoundError, keep_id, drop_id, locked=not dry_run)
    filled, conflicts = _merged_values(PetCreate, kept, dropped)
    if not dry_run:
        await delete_pet(session, drop_id)
        if filled:
            kept = await one_row.update(session, Pet, keep_id, filled) or kept
    return MergeReport(kept, drop_id, filled, conflicts, 0, dry_run)


async def _fetch_both(
    session: AsyncSession, model: type[Row], not_found: type[NotFoundError], keep_id: int, drop_id: int, *, locked: bool
) -> tuple[Row, Row]:
    is_possible = {row_id: is_id(row_id) for row_id in (keep_id, drop_id)}
    if keep_id == drop_id:
        raise ValueError("cannot merge a row with itself: keep_id and drop_id must differ")
    for row_id in is_possible:
        if not is_possible[row_id]:
            raise not_found(row_id)
    query = select(model).where(col(model.id).in_([keep_id, drop_id])).order_by(col(model.id))  # Avoids deadlocks.
    found = {row.id: row for row in await execution.fetch_all(session, query.with_for_update() if locked else query)}
    for row_id in is_possible:
        if row_id not in found:
            raise not_found(row_id)
    return found[keep_id], found[drop_id]


def _merged_values(
    shape: type[UserCreate] | type[PetCreate], kept: User | Pet, dropped: User | Pet
) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    """Return the values that fill the kept row, and the other values of the dropped row that differ."""
    kept_values, dropped_values = ({name: getattr(row, name) for name in shape.model_fields} for row in (kept, dropped))
    shape.model_validate(kept_values)  # An invalid kept row would make every value a conflict.
    filled: dict[str, Any] = {}
    conflicts: dict[str, tuple[Any, Any]] = {}
    for group in dict.fromkeys(_GROUPS.get(name, (name,)) for name in shape.model_fields):
        differing = [name for name in group if dropped_values[name] != kept_values[name]]
        new = {name: dropped_values[name] for name in differing if not _is_blank(dropped_values, name)}
        if all(_is_blank(kept_values, name) for name in new) and _is_valid(shape, kept_values | filled | new):
            filled |= new
        else:
            conflicts |= {name: (kept_values[name], value) for name, value in new.items()}
    return filled, conflicts


def _is_blank(values: dict[str, Any], name: str) -> bool:
    if name == "birth_date_estimated":
        return values["birth_date"] is None
    return values[name] is None or (name == "sex" and values[name] == "unknown")


def _is_valid(shape: type[UserCreate] | type[PetCreate], values: dict[str, Any]) -> bool:
    try:
        shape.model_validate(values)
    except ValidationError:
        return False
    return True
