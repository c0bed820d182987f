"""Rows that may be one: found among those that are there, and before another one joins them. Nothing is merged here."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, Generic, NamedTuple, Self

import sqlalchemy as sa
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ...errors import SimilarExistsError
from ...models import Pet, PetCreate, Row, User, UserCreate
from ..statements import execution, key_lookup
from ..statements.chunks import BATCH_SIZE, fetch_all, mapped
from ..statements.column_values import new_values
from .matching import (
    GMAIL,
    GMAIL_DOMAINS,
    ISO_LENGTH,
    MOST_ALIKE,
    DuplicateReason,
    Group,
    Index,
    Key,
    Member,
    agreed,
    chip_ends_of,
    chips_of,
    keys_of,
    mailbox_of,
    member_of,
    score,
)

_USER_COLUMNS = ("id", "name_key", "phone", "postal_code", "email")
_PET_COLUMNS = (
    *("id", "name_key", "owner_id", "species", "birth_date", "birth_date_estimated"),
    *("microchip", "external_ref"),
)
_LAST_CHARACTER = chr(0x10FFFF)


@dataclass(frozen=True, slots=True)
class DuplicateGroup(Generic[Row]):
    """Rows that may be one, by id: every two of them agree in every one of the reasons."""

    rows: list[Row]
    reasons: tuple[DuplicateReason, ...]

    @property
    def score(self) -> int:
        """How strong the reasons are together: from 1 upwards."""
        return score(self.reasons)


async def find_duplicate_users(session: AsyncSession) -> AsyncIterator[DuplicateGroup[User]]:
    """Yield the users who may be one, archived ones too, strongest first; each group is read when its turn comes.

    What more than 100 users have in common is taken for a placeholder, and left out.
    """
    async for group in _find(session, User):
        yield group


async def find_duplicate_pets(session: AsyncSession) -> AsyncIterator[DuplicateGroup[Pet]]:
    """Yield the pets that may be one, archived ones too, strongest first; each group is read when its turn comes.

    What more than 100 pets have in common is taken for a placeholder, and left out; so are pets that have different
    microchips of the same kind.
    """
    async for group in _find(session, Pet):
        yield group


async def _find(session: AsyncSession, model: type[Row]) -> AsyncIterator[DuplicateGroup[Row]]:
    for batch in _batches(await _groups(session, model)):
        ids = [row_id for group in batch for row_id in group.ids]
        found = await mapped(partial(_Found.of, model), await key_lookup.fetch_rows(session, model, "id", ids))
        by_id = {each.member.id: each for each in found}
        # All of a batch before its first row is handed out: what its receiver commits may have to be read anew.
        for group in [_as_it_is_now(group, by_id) for group in batch]:
            if group is not None:
                yield group


async def _groups(session: AsyncSession, model: type[Row]) -> list[Group]:
    index = Index()
    last = 0
    while True:
        page = await fetch_all(session, _of_keys(model), {"last": last})
        await mapped(lambda row: index.add(member_of(row), keys_of(model, row)), page)
        if len(page) < BATCH_SIZE:
            # Where half of 100,000 rows are duplicates this takes a second, in which others want to go on.
            return await asyncio.to_thread(index.take_groups)
        last = page[-1].id


def _batches(groups: list[Group]) -> Iterator[list[Group]]:
    """Yield groups to be read in one statement; a row comes once, for its receiver may merge it with another."""
    batch: list[Group] = []
    ids: set[int] = set()
    groups.reverse()
    while groups:
        group = groups.pop()  # To let go of all of them in the end would take as long as to make them.
        if len(ids) + len(group.ids) > BATCH_SIZE or not ids.isdisjoint(group.ids):
            yield batch
            batch, ids = [], set()
        batch.append(group)
        ids.update(group.ids)
    if batch:
        yield batch


class _Found(NamedTuple):
    row: Any
    member: Member
    keys: frozenset[Key]

    @classmethod
    def of(cls, model: type[User] | type[Pet], row: User | Pet) -> Self:
        return cls(row, member_of(row), keys_of(model, row))


def _as_it_is_now(group: Group, found: dict[int, _Found]) -> DuplicateGroup[Any] | None:
    # Rows may be gone, or changed, since their keys were read.
    there = [found[row_id] for row_id in group.ids if row_id in found]
    alike = [each for each in there if not each.keys.isdisjoint(group.keys)]
    if len(alike) < 2:
        return None
    shared = frozenset.intersection(*(each.keys for each in alike))
    reasons = agreed(shared, [each.member for each in alike])
    return DuplicateGroup([each.row for each in alike], reasons) if reasons else None


async def refuse_similar(
    session: AsyncSession, model: type[Row], data: UserCreate | PetCreate, on_similar: str
) -> None:
    """Raise SimilarExistsError if there are rows that look like the new one, in one statement that indexes serve."""
    if on_similar != "error":
        raise ValueError('on_similar must be "allow" or "error"')
    new = SimpleNamespace(id=0, **new_values(data))
    keys = keys_of(model, new)
    if not keys:
        return
    condition = _may_be_user(new) if model is User else _may_be_pet(new)
    found = await execution.fetch_all(session, select(model).where(condition).order_by(col(model.id)))
    of_found = [keys_of(model, row) for row in found]
    common = Counter(key for own in of_found for key in own)
    telling = {key for key in keys if common[key] < MOST_ALIKE}
    similar = [
        (score(reasons), row)
        for row, own in zip(found, of_found, strict=True)
        if (reasons := agreed(telling & own, [member_of(new), member_of(row)]))
    ]
    if similar:
        candidates = [row for _, row in sorted(similar, key=lambda pair: -pair[0])]
        raise SimilarExistsError([member_of(row).id for row in candidates], candidates)


def _may_be_user(new: Any) -> sa.ColumnElement[bool]:
    """Return the condition for all users who may share a key with a new one."""
    same_name = col(User.name_key) == new.name_key
    given = [name for name in ("phone", "postal_code", "email") if getattr(new, name)]
    condition = sa.and_(same_name, sa.or_(*(col(getattr(User, name)).is_not(None) for name in given)))
    if not new.email:
        return condition
    return sa.or_(condition, _may_be_mailbox(*mailbox_of(new.email)))


def _may_be_mailbox(local: str, domain: str) -> sa.ColumnElement[bool]:
    email: Any = col(User.email)
    # A range, which every engine's index serves. With dots left out, only the first character is sure.
    start = local[0] if domain == GMAIL else local
    spelled = sa.func.replace(email, ".", "") if domain == GMAIL else email
    domains = GMAIL_DOMAINS if domain == GMAIL else (domain,)
    return sa.and_(
        email >= start,
        email < start + _LAST_CHARACTER,
        spelled.startswith(local, autoescape=True),
        sa.or_(*(email.endswith(f"@{name}", autoescape=True) for name in domains)),
    )


def _may_be_pet(new: Any) -> sa.ColumnElement[bool]:
    """Return the condition for the pets that may share a key with a new one.

    A number in another pet's notes or external_ref is only looked for where the name is the same: no index leads there.
    """
    conditions: list[sa.ColumnElement[bool]] = []
    either: list[sa.ColumnElement[bool]] = []
    if new.owner_id is not None:
        either.append(col(Pet.owner_id) == new.owner_id)
    if new.birth_date:
        either.append(col(Pet.birth_date) == new.birth_date)
    for end in chip_ends_of(new):
        written = f"%{'%'.join(end)}%"
        either += [col(column).like(written) for column in (Pet.microchip, Pet.external_ref, Pet.notes)]
    if either:
        conditions.append(sa.and_(col(Pet.name_key) == new.name_key, sa.or_(*either)))
    if chips := chips_of(new):
        conditions.append(col(Pet.microchip).in_(chips))
    return sa.or_(*conditions)


@cache
def _of_keys(model: type[User] | type[Pet]) -> Any:
    """Select what keys are made of, a batch behind the row `last`."""
    names = _USER_COLUMNS if model is User else _PET_COLUMNS
    columns: list[Any] = [col(getattr(model, name)) for name in names]
    if model is Pet:
        # Notes may be long, and only say something about a pet without a number of today's kind.
        has_number = sa.func.length(Pet.microchip) == ISO_LENGTH
        columns.append(sa.case((has_number, None), else_=Pet.notes).label("notes"))
    row_id = col(model.id)
    return sa.select(*columns).where(row_id > sa.bindparam("last")).order_by(row_id).limit(BATCH_SIZE)
