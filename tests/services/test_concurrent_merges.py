"""Merges while others change the same rows."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlmodel import col, select

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    MergeReport,
    PetCreate,
    PetNotFoundError,
    TransactionConflictError,
    UserCreate,
    UserNotFoundError,
    count_pets,
    create_pet,
    create_pets,
    create_user,
    get_pet,
    get_user,
    list_pets,
    merge_pets,
    merge_users,
    transfer_pet,
)

from ..stress.measures import some_transaction_waits
from .twins import two_pets, two_users

on_servers = pytest.mark.parametrize(
    "engine_name", ["postgresql", "mariadb"], indirect=True
)  # SQLite locks all at once.
Merge = Callable[..., Awaitable[MergeReport[Any]]]


async def test_a_pet_that_the_loser_gets_while_a_merge_waits_is_moved(db: Database) -> None:
    async with db.transaction() as session:
        kept, dropped = await two_users(session, {}, {})

    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex", owner_id=dropped.id))
        merging = asyncio.ensure_future(db.run_transaction(lambda other: merge_users(other, kept.id, dropped.id)))
        assert await some_transaction_waits(db)
    report = await merging

    assert report.moved_pets == 1
    async with db.reading() as session:
        assert [pet.owner_id for pet in (await list_pets(session)).items] == [kept.id]


async def test_a_pet_that_the_loser_gets_while_a_merge_is_at_work_is_refused(db: Database) -> None:
    async with db.transaction() as session:
        kept, dropped = await two_users(session, {}, {})
        rex = await create_pet(session, PetCreate(name="Rex"))

    async def give() -> None:
        async with db.transaction() as session:
            await transfer_pet(session, rex.id, dropped.id)

    async with db.transaction() as session:
        await merge_users(session, kept.id, dropped.id)
        giving = asyncio.ensure_future(give())
        assert await some_transaction_waits(db)
    with pytest.raises(UserNotFoundError) as caught:
        await giving

    assert caught.value.key == dropped.id
    async with db.reading() as session:
        assert (await get_pet(session, rex.id)).model_dump() == rex.model_dump()


@pytest.mark.parametrize("merge", [merge_users, merge_pets])
async def test_two_merges_of_the_same_rows_leave_one_of_them(db: Database, merge: Merge) -> None:
    async with db.transaction() as session:
        one, other = await (two_users if merge is merge_users else two_pets)(session, {}, {})
        pets = [PetCreate(name="Rex", owner_id=owner.id) for owner in (one, other) if merge is merge_users]
        await create_pets(session, pets)
    there = 2 if merge is merge_users else 1

    outcomes = await asyncio.gather(
        db.run_transaction(lambda session: merge(session, one.id, other.id)),
        db.run_transaction(lambda session: merge(session, other.id, one.id)),
        return_exceptions=True,
    )

    [report] = [outcome for outcome in outcomes if isinstance(outcome, MergeReport)]
    [error] = [outcome for outcome in outcomes if not isinstance(outcome, MergeReport)]
    assert isinstance(error, UserNotFoundError | PetNotFoundError)
    assert error.key == report.dropped_id
    async with db.reading() as session:
        assert await count_pets(session) == there
        if merge is merge_users:
            assert await count_pets(session, owner_id=report.kept.id) == 2


async def test_two_merges_into_one_row_do_not_overwrite_each_other(db: Database) -> None:
    async with db.transaction() as session:
        kept, first = await two_users(session, {}, {"phone": "11111"})
        second = await create_user(session, UserCreate(name="Ada", phone="22222"))

    reports = await asyncio.gather(
        *(
            db.run_transaction(lambda session, loser=loser: merge_users(session, kept.id, loser.id))
            for loser in (first, second)
        )
    )

    [filled] = [report.filled["phone"] for report in reports if report.filled]
    [conflict] = [report.conflicts["phone"] for report in reports if report.conflicts]
    async with db.reading() as session:
        assert (await get_user(session, kept.id)).phone == filled
    assert set(conflict) == {"11111", "22222"}
    assert conflict[0] == filled


@on_servers
@pytest.mark.parametrize("merge", [merge_users, merge_pets])
@pytest.mark.parametrize("locked", ["kept", "dropped"])
async def test_a_merge_compares_what_a_change_under_way_leaves(db: Database, merge: Merge, locked: str) -> None:
    async with db.transaction() as session:
        kept, dropped = await (two_users if merge is merge_users else two_pets)(session, {}, {"notes": "dropped"})
    row, notes = (kept, "kept") if locked == "kept" else (dropped, "changed")

    async with db.transaction() as session:
        (await session.get(type(row), row.id)).notes = notes
        await session.flush()
        merging = asyncio.ensure_future(db.run_transaction(lambda other: merge(other, kept.id, dropped.id)))
        assert await some_transaction_waits(db)
    report = await merging

    if locked == "kept":
        assert (report.filled, report.conflicts) == ({}, {"notes": ("kept", "dropped")})
    else:
        assert (report.filled, report.conflicts) == ({"notes": "changed"}, {})
    assert report.kept.notes == notes


@on_servers
@pytest.mark.parametrize("merge", [merge_users, merge_pets])
async def test_a_merge_locks_the_row_of_the_lower_id_first(db: Database, merge: Merge) -> None:
    async with db.transaction() as session:
        low, high = await (two_users if merge is merge_users else two_pets)(session, {}, {})
    async with db.transaction() as session:
        session.add(low)
        low.notes = "written later, so that PostgreSQL reads it behind the other one"
    by_id = select(type(low)).with_for_update()

    async with db.transaction() as session:
        await session.exec(by_id.where(col(type(low).id) == low.id))
        merging = asyncio.ensure_future(db.run_transaction(lambda other: merge(other, high.id, low.id)))
        assert await some_transaction_waits(db)
        async with db.session() as third:  # The merge has not locked this one yet.
            nowait = select(type(high)).where(col(type(high).id) == high.id).with_for_update(nowait=True)
            assert (await third.exec(nowait)).one().id == high.id

    assert (await merging).kept.id == high.id


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_a_pet_that_an_old_snapshot_does_not_show_makes_a_merge_try_again(db: Database) -> None:
    async with db.transaction() as session:
        kept, dropped = await two_users(session, {}, {})

    async with AsyncSession(db.engine) as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        await count_pets(session)
        async with db.transaction() as other:
            rex = await create_pet(other, PetCreate(name="Rex", owner_id=dropped.id))
        with pytest.raises(TransactionConflictError):
            await merge_users(session, kept.id, dropped.id)

    async with db.reading() as session:
        assert (await get_pet(session, rex.id)).owner_id == dropped.id
