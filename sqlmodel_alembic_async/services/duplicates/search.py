"""Find duplicates among stored rows, and refuse a new row that looks like a stored one."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, Generic, NamedTuple, Self

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from ...errors import SimilarExistsError
from ...models import Pet, PetCreate, Row, User, UserCreate
from ..statements import key_lookup
from ..statements.chunks import BATCH_SIZE, fetch_all, mapped
from ..statements.column_values import new_values
from ..statements.threads import run_in_thread
from .matching import (
    GMAIL,
    GMAIL_DOMAINS,
    ISO_LENGTH,
    MAX_GROUP_SIZE,
    DuplicateIndex,
    DuplicateReason,
    Group,
    Key,
    Member,
    chip_ends_of,
    chips_of,
    keys_of,
    mailbox_of,
    member_of,
    score,
    valid_reasons,
)

_USER_COLUMNS = ("id", "name_key", "phone", "postal_code", "email")
_PET_COLUMNS = (
    *("id", "name_key", "owner_id", "species", "birth_date", "birth_date_estimated"),
    *("microchip", "external_ref"),
)
_LAST_CHARACTER = chr(0x10FFFF)


@dataclass(frozen=True, slots=True)
class DuplicateGroup(Generic[Row]):
    """Users or pets that may be duplicates of each other; each pair agrees in all reasons.

    Attributes:
        rows: The rows, by id.
        reasons: Why the rows may be duplicates, the strongest reason first.

    """

    rows: list[Row]
    reasons: tuple[DuplicateReason, ...]

    @property
    def score(self) -> int:
        """The sum of the weights of the reasons, at least 1; a higher score means a more likely duplicate."""
        return score(self.reasons)


async def find_duplicate_users(session: AsyncSession) -> AsyncIterator[DuplicateGroup[User]]:
    """Yield groups of users who may be duplicates, highest score first; archived users are included.

    It reads all users first, in batches, and keeps a few hundred bytes for each user in memory. It locks nothing and
    needs no snapshot: the users of a group are read again before the group is yielded, and those that no longer match
    are left out. A value that more than 100 users share is a placeholder and is ignored.

    Raises:
        DatabaseError: The database failed, or the session is closed or used by another task.

    """
    async for group in _find(session, User):
        yield group


async def find_duplicate_pets(session: AsyncSession) -> AsyncIterator[DuplicateGroup[Pet]]:
    """Yield groups of pets that may be duplicates, highest score first; archived pets are included.

    It reads all pets first, in batches, and keeps a few hundred bytes for each pet in memory. It locks nothing and
    needs no snapshot: the pets of a group are read again before the group is yielded, and those that no longer match
    are left out. A value that more than 100 pets share is a placeholder and is ignored. Pets with different microchips
    of the same kind are different pets.

    Raises:
        DatabaseError: The database failed, or the session is closed or used by another task.

    """
    async for group in _find(session, Pet):
        yield group


async def _find(session: AsyncSession, model: type[Row]) -> AsyncIterator[DuplicateGroup[Row]]:
    for batch in _batches(await _groups(session, model)):
        ids = [row_id for group in batch for row_id in group.ids]
        found = await mapped(partial(_Candidate.of, model), await key_lookup.fetch_rows(session, model, "id", ids))
        candidates = {candidate.member.id: candidate for candidate in found}
        # Complete the whole batch before the first yield: after a commit of the caller, its rows may be expired.
        for group in [_current_group(group, candidates) for group in batch]:
            if group is not None:
                yield group


async def _groups(session: AsyncSession, model: type[Row]) -> list[Group]:
    index = DuplicateIndex()
    last = 0
    while True:
        page = await fetch_all(session, _key_columns_query(model), {"last": last})
        await mapped(lambda row: index.add(member_of(row), keys_of(model, row)), page)
        if len(page) < BATCH_SIZE:
            return await run_in_thread(index.take_groups)  # With 50,000 duplicates it takes a second.
        last = page[-1].id


def _batches(groups: list[Group]) -> Iterator[list[Group]]:
    """Yield batches of groups for one statement each; no row is twice in a batch, as the caller may merge it."""
    batch: list[Group] = []
    ids: set[int] = set()
    groups.reverse()
    while groups:
        group = groups.pop()  # Free the groups one by one: freeing them all at the end takes long.
        if len(ids) + len(group.ids) > BATCH_SIZE or not ids.isdisjoint(group.ids):
            yield batch
            batch, ids = [], set()
        batch.append(group)
        ids.update(group.ids)
    if batch:
        yield batch


class _Candidate(NamedTuple):
    row: Any
    member: Member
    keys: frozenset[Key]

    @classmethod
    def of(cls, model: type[User] | type[Pet], row: User | Pet) -> Self:
        return cls(row, member_of(row), keys_of(model, row))


def _current_group(group: Group, candidates: dict[int, _Candidate]) -> DuplicateGroup[Any] | None:
    stored = [candidates[row_id] for row_id in group.ids if row_id in candidates]
    alike = [candidate for candidate in stored if not candidate.keys.isdisjoint(group.keys)]
    if len(alike) < 2:
        return None
    shared = frozenset.intersection(*(candidate.keys for candidate in alike))
    reasons = valid_reasons(shared, [candidate.member for candidate in alike])
    return DuplicateGroup([candidate.row for candidate in alike], reasons) if reasons else None


async def refuse_similar(
    session: AsyncSession, model: type[Row], data: UserCreate | PetCreate, on_similar: str
) -> None:
    """Raise SimilarExistsError if stored rows look like the new one; the statements use indexes."""
    if on_similar != "error":
        raise ValueError('on_similar must be "allow" or "error"')
    new = SimpleNamespace(id=0, **new_values(data))
    keys = keys_of(model, new)
    if not keys:
        return
    condition = _user_candidates(new) if model is User else _pet_candidates(new)
    # Many rows may have the same name: load only those that are similar.
    found = await fetch_all(session, sa.select(*_key_columns(model)).where(condition))
    members = await mapped(lambda row: (member_of(row), keys & keys_of(model, row)), found)
    counts = Counter(key for _, shared in members for key in shared)
    counted = {key for key in keys if counts[key] < MAX_GROUP_SIZE}
    scores = {
        member.id: score(reasons)
        for member, shared in members
        if (reasons := valid_reasons(counted & shared, [member_of(new), member]))
    }
    rows = {member_of(row).id: row for row in await key_lookup.fetch_rows(session, model, "id", scores)}
    if ids := sorted(rows, key=lambda row_id: (-scores[row_id], row_id)):
        raise SimilarExistsError(ids, [rows[row_id] for row_id in ids])


def _user_candidates(new: Any) -> sa.ColumnElement[bool]:
    """Return the condition for all users who may share one of the keys of matching._user_keys() with a new user."""
    same_name = col(User.name_key) == new.name_key
    given = [name for name in ("phone", "postal_code", "email") if getattr(new, name)]
    condition = sa.and_(same_name, sa.or_(*(col(getattr(User, name)).is_not(None) for name in given)))
    if not new.email:
        return condition
    return sa.or_(condition, _mailbox_candidates(*mailbox_of(new.email)))


def _mailbox_candidates(local: str, domain: str) -> sa.ColumnElement[bool]:
    email: Any = col(User.email)
    # A range, for which every engine uses the index. At Gmail, a dot may follow the first character.
    start = local[0] if domain == GMAIL else local
    address = sa.func.replace(email, ".", "") if domain == GMAIL else email
    domains = GMAIL_DOMAINS if domain == GMAIL else (domain,)
    return sa.and_(
        email >= start,
        email < start + _LAST_CHARACTER,
        address.startswith(local, autoescape=True),
        sa.or_(*(email.endswith(f"@{name}", autoescape=True) for name in domains)),
    )


def _pet_candidates(new: Any) -> sa.ColumnElement[bool]:
    """Return the condition for the pets that may share one of the keys of matching._pet_keys() with a new pet.

    The notes and external_ref of another pet are searched for a number only if the names agree, because no index helps.
    """
    conditions: list[sa.ColumnElement[bool]] = []
    if_same_name: list[sa.ColumnElement[bool]] = []
    if new.owner_id is not None:
        if_same_name.append(col(Pet.owner_id) == new.owner_id)
    if new.birth_date:
        if_same_name.append(col(Pet.birth_date) == new.birth_date)
    for end in chip_ends_of(new):
        pattern = f"%{'%'.join(end)}%"
        if_same_name += [col(column).like(pattern) for column in (Pet.microchip, Pet.external_ref, Pet.notes)]
    if if_same_name:
        conditions.append(sa.and_(col(Pet.name_key) == new.name_key, sa.or_(*if_same_name)))
    if chips := chips_of(new):
        conditions.append(col(Pet.microchip).in_(chips))
    return sa.or_(*conditions)


@cache
def _key_columns_query(model: type[User] | type[Pet]) -> Any:
    """Select the columns from which keys are made, one batch after the row `last`."""
    row_id = col(model.id)
    query = sa.select(*_key_columns(model)).where(row_id > sa.bindparam("last"))
    return query.order_by(row_id).limit(BATCH_SIZE)


def _key_columns(model: type[User] | type[Pet]) -> list[Any]:
    names = _USER_COLUMNS if model is User else _PET_COLUMNS
    columns: list[Any] = [col(getattr(model, name)) for name in names]
    if model is Pet:
        # Notes may be long, and are only searched if the pet has no ISO number.
        has_number = sa.func.length(Pet.microchip) == ISO_LENGTH
        columns.append(sa.case((has_number, None), else_=Pet.notes).label("notes"))
    return columns
