"""Create or update users and pets by a key of theirs, as a synchronisation with another system does."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal, get_args

from sqlmodel.ext.asyncio.session import AsyncSession

from ..errors import UserNotFoundError
from ..import_report import Outcome
from ..models import Pet, PetCreate, Row, User, UserCreate
from .statements import execution, key_lookup, many_rows, one_row, prebuilt, row_locks, unit_of_work, upsert_flushes
from .statements.chunks import BATCH_SIZE, mapped
from .statements.column_values import stamped
from .statements.one_row import expect
from .statements.upsert_plans import Given, Plan, changes_of, given_values, plan

UserKey = Literal["external_ref", "email"]
PetKey = Literal["external_ref", "microchip"]


@dataclass(frozen=True, slots=True)
class UpsertReport:
    """How many rows upsert_users() or upsert_pets() created, updated and left unchanged.

    Attributes:
        created: Rows that were not stored.
        updated: Rows that changed a stored row, or an earlier row with the same key.
        unchanged: Rows whose values were stored already.

    """

    created: int
    updated: int
    unchanged: int


async def upsert_user(session: AsyncSession, data: UserCreate, *, by: UserKey = "external_ref") -> tuple[User, Outcome]:
    """Update the user with this key, or create one; return the user, and "created", "updated" or "unchanged".

    Only the fields that `data` sets are changed, and None changes nothing. An archived user is updated, and stays
    archived. If another transaction creates or changes the same user at the same time, this one waits for it, and then
    applies its values to the newest row.

    Args:
        session: The session to write with; the caller commits.
        data: The values of the user; it must have the key.
        by: The key: "external_ref" or "email".

    Raises:
        AlreadyExistsError: Another user has the `email` or `external_ref`; `field` names it, and is not the key.
        TypeError: `data` is not a UserCreate, or has fields that a UserCreate does not have.
        ValidationError: `data` was changed to values that the shape refuses.
        ValueError: `data` has no value of the key, or `by` is not a key of users.
        TransactionConflictError: Another transaction holds a lock too long, or the two wait for each other.
        StorageError: The session is read-only.
        DatabaseError: A statement failed.

    """
    key = _checked_key(by, UserKey)
    return await _upsert_one(session, User, key, given_values(key, expect(UserCreate, data)))


async def upsert_users(
    session: AsyncSession, users: Iterable[UserCreate], *, by: UserKey = "external_ref"
) -> UpsertReport:
    """Do what upsert_user() does for many users, in batches of 1,000, and return how many of them changed what.

    Users with the same key are applied one after the other, in one change of the stored row. Memory stays constant,
    however many there are. After an error, roll back the transaction, or the savepoint around the call: some batches
    may be written. The rows that the session holds are read again.

    Args:
        session: The session to write with; the caller commits.
        users: The values of the users, from any iterable or generator; each must have the key.
        by: The key: "external_ref" or "email".

    Raises:
        AlreadyExistsError: Another user has the `email` or `external_ref` of one of them; `field` names it, and is not
            the key.
        TypeError: An item is not a UserCreate, or has fields that a UserCreate does not have.
        ValidationError: An item was changed to values that the shape refuses.
        ValueError: An item has no value of the key, or `by` is not a key of users.
        TransactionConflictError: Another transaction holds a lock too long, or the two wait for each other.
        StorageError: The session is read-only.
        DatabaseError: A statement failed.

    """
    return await _upsert_many(session, User, UserCreate, users, _checked_key(by, UserKey))


async def upsert_pet(session: AsyncSession, data: PetCreate, *, by: PetKey = "external_ref") -> tuple[Pet, Outcome]:
    """Update the pet with this key, or create one; return the pet, and "created", "updated" or "unchanged".

    Only the fields that `data` sets are changed, and None changes nothing. Another `owner_id` transfers the pet: then
    `acquired_on` is that of `data`, or None. An exact birth date is kept if `data` only estimates its year. An archived
    pet is updated, and stays archived. If another transaction creates or changes the same pet at the same time, this
    one waits for it, and then applies its values to the newest row.

    Args:
        session: The session to write with; the caller commits.
        data: The values of the pet; it must have the key.
        by: The key: "external_ref" or "microchip".

    Raises:
        UserNotFoundError: No user has the id `owner_id`.
        AlreadyExistsError: Another pet has the `microchip` or `external_ref`; `field` names it, and is not the key.
        PetDeceasedError: The stored pet is deceased, and `owner_id` is another one.
        InvalidValueError: The new values contradict what is stored; `constraint` names the rule.
        TypeError: `data` is not a PetCreate, or has fields that a PetCreate does not have.
        ValidationError: `data` was changed to values that the shape refuses.
        ValueError: `data` has no value of the key, or `by` is not a key of pets.
        TransactionConflictError: Another transaction holds a lock too long, or the two wait for each other.
        StorageError: The session is read-only.
        DatabaseError: A statement failed.

    """
    key = _checked_key(by, PetKey)
    try:
        return await _upsert_one(session, Pet, key, given_values(key, expect(PetCreate, data)))
    except UserNotFoundError as error:
        raise UserNotFoundError(data.owner_id) from error.__cause__


async def upsert_pets(session: AsyncSession, pets: Iterable[PetCreate], *, by: PetKey = "external_ref") -> UpsertReport:
    """Do what upsert_pet() does for many pets, in batches of 1,000, and return how many of them changed what.

    Pets with the same key are applied one after the other, in one change of the stored row. Memory stays constant,
    however many there are. After an error, roll back the transaction, or the savepoint around the call: some batches
    may be written. The rows that the session holds are read again.

    Args:
        session: The session to write with; the caller commits.
        pets: The values of the pets, from any iterable or generator; each must have the key.
        by: The key: "external_ref" or "microchip".

    Raises:
        UserNotFoundError: No user has the `owner_id` of one of them; `key` is None.
        AlreadyExistsError: Another pet has the `microchip` or `external_ref` of one of them; `field` names it, and is
            not the key.
        PetDeceasedError: A stored pet is deceased, and its `owner_id` is another one.
        InvalidValueError: The new values contradict what is stored; `constraint` names the rule.
        TypeError: An item is not a PetCreate, or has fields that a PetCreate does not have.
        ValidationError: An item was changed to values that the shape refuses.
        ValueError: An item has no value of the key, or `by` is not a key of pets.
        TransactionConflictError: Another transaction holds a lock too long, or the two wait for each other.
        StorageError: The session is read-only.
        DatabaseError: A statement failed.

    """
    return await _upsert_many(session, Pet, PetCreate, pets, _checked_key(by, PetKey))


async def _upsert_one(session: AsyncSession, model: type[Row], key: str, row: Given) -> tuple[Row, Outcome]:
    execution.refuse_reader(session)
    await row_locks.lock_database(session, model)
    is_retry = False  # Whether another transaction was faster, so that the row is locked when it is read.
    while True:
        query = prebuilt.selection_by(model, key, locked=is_retry)
        stored = await execution.fetch_one(session, query, {"key": row.key})
        if stored is None:
            created = await _insert_one(session, model, key, row, is_retry)
            if created is not None:
                return created, "created"
        elif changes := changes_of(vars(stored), row.given):
            updated = await one_row.patch_values(session, model, vars(stored)["id"], changes, stored.version)
            if updated is not None:
                return updated, "updated"
        else:
            return stored, "unchanged"
        is_retry = True


async def _insert_one(session: AsyncSession, model: type[Row], key: str, row: Given, is_retry: bool) -> Row | None:
    values = stamped(row.all_values)
    if unit_of_work.is_heard(session, model, "insert"):
        return (await upsert_flushes.insert(session, model, key, [values], is_retry=is_retry)).get(row.key)
    written = await upsert_flushes.write(session, model, key, [values], set(), is_retry=is_retry)
    if not written:
        return None
    return one_row.persistent(session.sync_session, model, values | {"id": written[row.key], "archived_at": None})


async def _upsert_many(
    session: AsyncSession, model: type[Row], shape: type[UserCreate] | type[PetCreate], rows: Iterable[Any], key: str
) -> UpsertReport:
    execution.refuse_reader(session)
    await row_locks.lock_database(session, model)
    outcomes: Counter[Outcome] = Counter()
    remaining = iter(rows)
    while batch := await mapped(lambda row: given_values(key, expect(shape, row)), islice(remaining, BATCH_SIZE)):
        outcomes += await _upsert_batch(session, model, key, batch)
    return UpsertReport(outcomes["created"], outcomes["updated"], outcomes["unchanged"])


async def _upsert_batch(session: AsyncSession, model: type[Row], key: str, batch: list[Given]) -> Counter[Outcome]:
    pending: dict[str, list[Given]] = {}
    for row in batch:
        pending.setdefault(row.key, []).append(row)
    outcomes: Counter[Outcome] = Counter()
    updated: set[int] = set()
    is_retry = False
    while pending:
        found = await key_lookup.fetch_columns(session, model, key, pending, locked=is_retry)
        stored = {row[key]: row for row in found}
        plans = dict(zip(pending, await mapped(partial(_plan, stored), pending.items()), strict=True))
        values = [planned.values for planned in plans.values() if planned.values is not None]
        changed = {name for planned in plans.values() for name in planned.changed}
        written: dict[str, int] = {}
        if values:
            written = await upsert_flushes.write(session, model, key, values, changed, is_retry=is_retry)
        for value, planned in plans.items():
            if planned.values is None or value in written:
                outcomes.update(planned.outcomes)
                del pending[value]
        updated |= {written[value] for value in stored.keys() & written.keys()}
        is_retry = True
    await many_rows.refresh(session, model, many_rows.held_ids(session, model, updated))
    return outcomes


def _plan(stored: dict[str, dict[str, Any]], rows_of_key: tuple[str, list[Given]]) -> Plan:
    key, rows = rows_of_key
    return plan(stored.get(key), rows)


def _checked_key(by: str, keys: object) -> str:
    if by not in get_args(keys):
        raise ValueError(f"by must be one of {', '.join(get_args(keys))}")
    return by
