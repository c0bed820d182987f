"""Two rows of one user, or of one pet, become one."""

from dataclasses import dataclass
from typing import Any, Generic

from pydantic import ValidationError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ..errors import NotFoundError, PetNotFoundError, TransactionConflictError, UserHasPetsError, UserNotFoundError
from ..fields import is_id
from ..models import Pet, PetCreate, Row, User, UserCreate
from .pets import change_pets_of, delete_pet
from .statements import execution, many_rows, one_row
from .users import delete_user

# Each is one statement: half of it, beside the other row's half, would say what neither row says.
_TOGETHER = (
    ("address", "city", "postal_code"),
    ("birth_date", "birth_date_estimated"),
    ("owner_id", "acquired_on"),
    ("status", "deceased_on"),
)
_GROUPS = {name: group for group in _TOGETHER for name in group}


@dataclass(frozen=True, slots=True)
class MergeReport(Generic[Row]):
    """What a merge did, or in a dry run would do; `conflicts` holds (kept, dropped) for what was not taken over."""

    kept: Row
    dropped_id: int
    filled: dict[str, Any]
    conflicts: dict[str, tuple[Any, Any]]
    moved_pets: int
    dry_run: bool


async def merge_users(session: AsyncSession, keep_id: int, drop_id: int, *, dry_run: bool = False) -> MergeReport[User]:
    """Fill the blanks of one user from another, move the pets, and delete the other; a dry run writes nothing."""
    kept, dropped = await _fetch_both(session, User, UserNotFoundError, keep_id, drop_id, locked=not dry_run)
    filled, conflicts = _compared(UserCreate, kept, dropped)
    if dry_run:
        pets = await many_rows.count(session, Pet, {("owner_id", "eq"): drop_id})
        return MergeReport(kept, drop_id, filled, conflicts, pets, dry_run)
    # Theirs since the same day: acquired_on stays.
    moved = await change_pets_of(session, drop_id, {"owner_id": keep_id})
    try:
        await delete_user(session, drop_id)  # Before its unique values are another row's.
    except UserHasPetsError as error:
        # Only a transaction that sees an old snapshot, as REPEATABLE READ does, can have missed one.
        raise TransactionConflictError("the user got a pet meanwhile: try again") from error.__cause__
    if filled:
        kept = await one_row.update(session, User, keep_id, filled) or kept
    return MergeReport(kept, drop_id, filled, conflicts, moved, dry_run)


async def merge_pets(session: AsyncSession, keep_id: int, drop_id: int, *, dry_run: bool = False) -> MergeReport[Pet]:
    """Fill the blanks of one pet from another, and delete the other; a dry run writes nothing."""
    kept, dropped = await _fetch_both(session, Pet, PetNotFoundError, keep_id, drop_id, locked=not dry_run)
    filled, conflicts = _compared(PetCreate, kept, dropped)
    if not dry_run:
        await delete_pet(session, drop_id)
        if filled:
            kept = await one_row.update(session, Pet, keep_id, filled) or kept
    return MergeReport(kept, drop_id, filled, conflicts, 0, dry_run)


async def _fetch_both(
    session: AsyncSession, model: type[Row], not_found: type[NotFoundError], keep_id: int, drop_id: int, *, locked: bool
) -> tuple[Row, Row]:
    possible = {row_id: is_id(row_id) for row_id in (keep_id, drop_id)}
    if keep_id == drop_id:
        raise ValueError("a row can not be merged with itself")
    for row_id in possible:
        if not possible[row_id]:
            raise not_found(row_id)
    query = select(model).where(col(model.id).in_([keep_id, drop_id])).order_by(col(model.id))  # Locked in one order.
    found = {row.id: row for row in await execution.fetch_all(session, query.with_for_update() if locked else query)}
    for row_id in possible:
        if row_id not in found:
            raise not_found(row_id)
    return found[keep_id], found[drop_id]


def _compared(
    shape: type[UserCreate] | type[PetCreate], kept: User | Pet, dropped: User | Pet
) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    """Return what the kept row takes over, and what else the dropped one says that it does not."""
    ours, theirs = ({name: getattr(row, name) for name in shape.model_fields} for row in (kept, dropped))
    shape.model_validate(ours)  # Else nothing would fit it, for a reason that is not the dropped row's.
    filled: dict[str, Any] = {}
    conflicts: dict[str, tuple[Any, Any]] = {}
    for group in dict.fromkeys(_GROUPS.get(name, (name,)) for name in shape.model_fields):
        new = {name: theirs[name] for name in group if theirs[name] != ours[name] and not _is_blank(theirs, name)}
        if all(_is_blank(ours, name) for name in new) and _is_valid(shape, ours | filled | new):
            filled |= new
        else:
            conflicts |= {name: (ours[name], value) for name, value in new.items()}
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
