"""Merges: what one row takes over from another, and what becomes of the pets, the session and everybody else."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.engine import URL
from sqlmodel import col, select

from sqlmodel_alembic_async import (
    AsyncSession,
    ConflictError,
    Database,
    MergeReport,
    Pet,
    PetCreate,
    PetNotFoundError,
    StaleVersionError,
    StorageError,
    User,
    UserCreate,
    UserNotFoundError,
    UserUpdate,
    archive_pet,
    count_pets,
    count_users,
    create_pet,
    create_pets,
    create_user,
    get_pet,
    get_user,
    list_pets,
    merge_pets,
    merge_users,
    stream_pets,
    transfer_pet,
    update_user,
)

from ..conftest import Statements, quoted
from .twins import two_pets, two_users

NOBODY = 2_000_000_000
Merge = Callable[..., Awaitable[MergeReport[Any]]]


# What a merge does.


async def test_blanks_are_filled_and_the_loser_is_gone(db: Database) -> None:
    lost = {"email": "ada@example.com", "external_ref": "S1", "notes": "Calls\nat noon"}
    async with db.transaction() as session:
        kept, dropped = await two_users(session, {"phone": "+44 1234"}, lost)

    async with db.transaction() as session:
        report = await merge_users(session, kept.id, dropped.id)

    async with db.reading() as session:
        found = await get_user(session, kept.id)
        assert await count_users(session, archived=None) == 1
    assert found.model_dump() == report.kept.model_dump()
    assert found.model_dump() == kept.model_dump() | lost | {"version": 2, "updated_at": found.updated_at}
    assert found.updated_at > kept.updated_at
    assert (report.dropped_id, report.moved_pets, report.dry_run) == (dropped.id, 0, False)
    assert (report.filled, report.conflicts) == (lost, {})


async def test_what_differs_is_listed_and_the_winner_keeps_its_own(session: AsyncSession) -> None:
    ours = {"name": "Ada", "email": "ada@example.com", "phone": "+44 1234", "notes": "Calls"}
    theirs = {"name": "ADA", "email": "countess@example.com", "phone": "+44 1234", "external_ref": "S1"}
    kept, dropped = await two_users(session, ours, theirs)

    report = await merge_users(session, kept.id, dropped.id)

    assert report.kept is kept
    assert report.conflicts == {"name": ("Ada", "ADA"), "email": ("ada@example.com", "countess@example.com")}
    assert report.filled == {"external_ref": "S1"}
    assert ours.items() <= (await get_user(session, kept.id)).model_dump().items()


async def test_a_merge_that_fills_nothing_leaves_the_winner_as_it_is(session: AsyncSession) -> None:
    kept, dropped = await two_users(session, {"city": "Rome"}, {"city": "Oslo"})
    before = kept.model_dump()

    report = await merge_users(session, kept.id, dropped.id)

    assert report.filled == {}
    assert (await get_user(session, kept.id)).model_dump() == before


async def test_a_merge_moves_the_pets(session: AsyncSession) -> None:
    kept, dropped = await two_users(session, {}, {})
    other = await create_user(session, UserCreate(name="Bob"))
    rex = await create_pet(session, PetCreate(name="Rex", owner_id=dropped.id, acquired_on=date(2020, 2, 2)))
    max_ = await create_pet(session, PetCreate(name="Max", owner_id=dropped.id, status="deceased"))
    hidden = await archive_pet(session, (await create_pet(session, PetCreate(name="Leo", owner_id=dropped.id))).id)
    await create_pets(session, [PetCreate(name="Own", owner_id=kept.id), PetCreate(name="Bob's", owner_id=other.id)])

    report = await merge_users(session, kept.id, dropped.id)

    assert report.moved_pets == 3
    assert [pet.name for pet in (await list_pets(session, owner_id=kept.id, archived=None)).items] == [
        "Leo",
        "Max",
        "Own",
        "Rex",
    ]
    assert (rex.owner_id, rex.acquired_on, rex.version) == (kept.id, date(2020, 2, 2), 2)
    assert rex.updated_at > rex.created_at
    assert (max_.version, hidden.version) == (2, 3)
    assert await count_pets(session, owner_id=other.id) == 1


async def test_more_pets_than_a_batch_move_together(session: AsyncSession) -> None:
    kept, dropped = await two_users(session, {}, {})
    await create_pets(session, (PetCreate(name=f"Pet {number}", owner_id=dropped.id) for number in range(1001)))
    held = [pet async for pet in stream_pets(session)]

    report = await merge_users(session, kept.id, dropped.id)

    assert report.moved_pets == await count_pets(session, owner_id=kept.id) == 1001
    assert {(pet.owner_id, pet.version) for pet in held} == {(kept.id, 2)}


async def test_a_merge_of_pets_fills_the_blanks(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    ours = {"species": "dog", "weight_g": 31_500}
    theirs = {
        "owner_id": ada.id,
        "acquired_on": date(2020, 2, 2),
        "sex": "male",
        "neutered": False,
        "birth_date": date(2019, 1, 1),
        "birth_date_estimated": True,
        "microchip": "985141000123456",
        "notes": "good boy",
        "external_ref": "S1",
    }
    kept, dropped = await two_pets(session, ours, {**theirs, "species": "cat", "weight_g": 31_600})

    report = await merge_pets(session, kept.id, dropped.id)

    assert (report.filled, report.moved_pets) == (theirs, 0)
    assert report.conflicts == {"species": ("dog", "cat"), "weight_g": (31_500, 31_600)}
    assert report.kept is kept
    assert (ours | theirs).items() <= (await get_pet(session, kept.id)).model_dump().items()
    assert kept.version == 2
    assert await count_pets(session, archived=None) == 1


async def test_a_merge_of_pets_that_fills_nothing_leaves_the_winner_as_it_is(session: AsyncSession) -> None:
    kept, dropped = await two_pets(session, {"species": "dog"}, {"species": "dog"})
    before = kept.model_dump()

    await merge_pets(session, kept.id, dropped.id)

    assert (await get_pet(session, kept.id)).model_dump() == before


async def test_what_is_archived_stays_so_and_when_a_row_was_created_too(session: AsyncSession) -> None:
    for kept_is_archived in (True, False):
        kept, dropped = await two_pets(session, {}, {"species": "dog"})
        await archive_pet(session, kept.id if kept_is_archived else dropped.id)
        before = (kept.archived_at, kept.created_at)

        report = await merge_pets(session, kept.id, dropped.id)

        assert (report.kept.archived_at, report.kept.created_at) == before
        assert (report.filled, report.conflicts) == ({"species": "dog"}, {})


BORN, LATER, DIED = date(2015, 1, 1), date(2018, 1, 1), date(2020, 1, 1)


@pytest.mark.parametrize(
    ("kept", "dropped", "filled", "conflicts"),
    [
        ({}, {"status": "active", "sex": "unknown"}, {}, {}),
        ({"sex": "male"}, {"sex": "unknown"}, {}, {}),
        ({"sex": "male"}, {"sex": "female"}, {}, {"sex": ("male", "female")}),
        ({"neutered": False}, {"neutered": True}, {}, {"neutered": (False, True)}),
        # A birth date is estimated or exact: one is not swapped for the other.
        ({}, {"birth_date": BORN}, {"birth_date": BORN}, {}),
        (
            {"birth_date": BORN, "birth_date_estimated": True},
            {"birth_date": LATER},
            {},
            {"birth_date": (BORN, LATER), "birth_date_estimated": (True, False)},
        ),
        (
            {"birth_date": BORN, "birth_date_estimated": True},
            {"birth_date": BORN},
            {},
            {"birth_date_estimated": (True, False)},
        ),
        ({"birth_date": BORN, "birth_date_estimated": True}, {}, {}, {}),
        # Nobody is killed, nor raised.
        (
            {},
            {"status": "deceased", "deceased_on": DIED},
            {},
            {"status": ("active", "deceased"), "deceased_on": (None, DIED)},
        ),
        ({"status": "deceased"}, {}, {}, {"status": ("deceased", "active")}),
        ({"status": "missing"}, {"status": "active"}, {}, {"status": ("missing", "active")}),
        ({"status": "deceased"}, {"status": "deceased", "deceased_on": DIED}, {"deceased_on": DIED}, {}),
        # What would contradict the winner is not filled.
        (
            {"status": "deceased", "deceased_on": BORN},
            {"status": "deceased", "birth_date": LATER, "birth_date_estimated": True},
            {},
            {"birth_date": (None, LATER), "birth_date_estimated": (False, True)},
        ),
        (
            {"status": "deceased", "birth_date": LATER},
            {"status": "deceased", "deceased_on": BORN},
            {},
            {"deceased_on": (None, BORN)},
        ),
        (
            {"status": "deceased"},
            {"status": "deceased", "birth_date": LATER, "deceased_on": DIED},
            {"birth_date": LATER, "deceased_on": DIED},
            {},
        ),
    ],
)
async def test_fields_of_a_pet_that_belong_together_are_taken_together(
    session: AsyncSession,
    kept: dict[str, Any],
    dropped: dict[str, Any],
    filled: dict[str, Any],
    conflicts: dict[str, Any],
) -> None:
    one, other = await two_pets(session, kept, dropped)

    report = await merge_pets(session, one.id, other.id)

    assert (report.filled, report.conflicts) == (filled, conflicts)
    assert (kept | filled).items() <= (await get_pet(session, one.id)).model_dump().items()


async def test_an_owner_comes_with_the_day_and_another_owner_does_not_come(session: AsyncSession) -> None:
    ada, bob = await two_users(session, {}, {})
    day = date(2020, 2, 2)
    theirs = {"owner_id": bob.id, "acquired_on": day}

    for ours, filled, conflicts in (
        ({}, theirs, {}),
        ({"status": "deceased"}, theirs, {"status": ("deceased", "active")}),
        ({"owner_id": bob.id}, {"acquired_on": day}, {}),
        ({"owner_id": ada.id}, {}, {"owner_id": (ada.id, bob.id), "acquired_on": (None, day)}),
    ):
        kept, dropped = await two_pets(session, ours, theirs)
        report = await merge_pets(session, kept.id, dropped.id)
        assert (report.filled, report.conflicts) == (filled, conflicts)


async def test_an_address_is_not_put_together_from_two(session: AsyncSession) -> None:
    theirs = {"address": "1 Main St", "city": "Oslo", "postal_code": "0150"}
    rest = {"address": "1 Main St", "postal_code": "0150"}

    for ours, filled, conflicts in (
        ({}, theirs, {}),
        ({"city": "Oslo"}, rest, {}),
        (
            {"city": "Rome"},
            {},
            {"city": ("Rome", "Oslo"), "address": (None, "1 Main St"), "postal_code": (None, "0150")},
        ),
    ):
        kept, dropped = await two_users(session, ours, theirs)
        report = await merge_users(session, kept.id, dropped.id)
        assert (report.filled, report.conflicts) == (filled, conflicts)


async def test_a_value_that_bypassed_the_rules_is_not_taken_over(session: AsyncSession) -> None:
    kept, dropped = await two_users(session, {}, {"city": "Rome"})
    await session.exec(sa.update(User).where(col(User.id) == dropped.id).values(phone="none"))

    report = await merge_users(session, kept.id, dropped.id)

    assert (report.filled, report.conflicts) == ({"city": "Rome"}, {"phone": (None, "none")})


async def test_a_winner_that_bypassed_the_rules_is_to_be_mended_first(session: AsyncSession) -> None:
    kept, dropped = await two_users(session, {}, {"city": "Rome"})
    await session.exec(sa.update(User).where(col(User.id) == kept.id).values(phone="none"))

    with pytest.raises(ValidationError, match="at least 5 digits"):
        await merge_users(session, kept.id, dropped.id)

    await update_user(session, kept.id, UserUpdate(phone=None))
    assert (await merge_users(session, kept.id, dropped.id)).filled == {"city": "Rome"}


async def test_a_report_reads_well(session: AsyncSession) -> None:
    kept, dropped = await two_users(session, {"city": "Rome"}, {"city": "Oslo", "phone": "12345"})

    report = await merge_users(session, kept.id, dropped.id)

    assert str(report) == (
        f"MergeReport(kept=User(id={kept.id}, name='Ada', phone='12345', city='Rome'), dropped_id={dropped.id}, "
        "filled={'phone': '12345'}, conflicts={'city': ('Rome', 'Oslo')}, moved_pets=0, dry_run=False)"
    )


async def test_each_merge_takes_the_statements_it_promises(
    session: AsyncSession, statements: Statements, engine_name: str
) -> None:
    no_returning = engine_name == "mariadb"
    cost = statements.taken_by
    ids = [(await create_user(session, UserCreate(name="Ada", phone=phone))).id for phone in (None, "12345", None)]
    pets = [(await create_pet(session, PetCreate(name="Rex", species=kind))).id for kind in (None, "dog", None)]
    await create_pets(session, [PetCreate(name="Rex", owner_id=ids[1])])

    assert await cost(merge_users(session, ids[0], ids[1], dry_run=True)) == 2
    assert await cost(merge_users(session, ids[0], ids[1])) == 4 + no_returning
    assert await cost(merge_users(session, ids[0], ids[2])) == 3
    held = (await list_pets(session, owner_id=ids[0])).items
    another = (await create_user(session, UserCreate(name="Ada"))).id
    assert await cost(merge_users(session, another, ids[0])) == 5 + no_returning
    assert await cost(merge_pets(session, pets[0], pets[1], dry_run=True)) == 1
    assert await cost(merge_pets(session, pets[0], pets[1])) == 3 + no_returning
    assert await cost(merge_pets(session, pets[0], pets[2])) == 2
    assert held[0].owner_id == another


# What it refuses.


@pytest.mark.parametrize(("merge", "not_found"), [(merge_users, UserNotFoundError), (merge_pets, PetNotFoundError)])
async def test_what_does_not_exist_is_not_merged(
    session: AsyncSession, statements: Statements, merge: Merge, not_found: type[UserNotFoundError]
) -> None:
    there = (await (two_users if merge is merge_users else two_pets)(session, {}, {}))[0].id

    for missing in (NOBODY, 0, -1, 2**31, 2**63):
        for dry_run in (True, False):
            for ids in ((there, missing), (missing, there), (missing, NOBODY + 1)):
                with pytest.raises(not_found) as caught:
                    await merge(session, *ids, dry_run=dry_run)
                assert caught.value.key == missing
    assert await statements.taken_by(asyncio.gather(merge(session, there, 0), return_exceptions=True)) == 0
    assert await count_users(session) + await count_pets(session) == 2


@pytest.mark.parametrize("merge", [merge_users, merge_pets])
async def test_a_row_is_not_merged_with_itself(session: AsyncSession, statements: Statements, merge: Merge) -> None:
    there = (await (two_users if merge is merge_users else two_pets)(session, {}, {}))[0].id
    before = len(statements)

    for row_id in (there, NOBODY):
        for dry_run in (True, False):
            with pytest.raises(ValueError, match="with itself"):
                await merge(session, row_id, row_id, dry_run=dry_run)
    for ids in ((True, there), (there, "1"), (1.0, 1)):
        with pytest.raises(TypeError, match="expected an int"):
            await merge(session, *ids)

    assert len(statements) == before


@pytest.mark.parametrize("merge", [merge_users, merge_pets])
async def test_a_second_merge_of_the_same_loser_finds_it_gone(session: AsyncSession, merge: Merge) -> None:
    kept, dropped = await (two_users if merge is merge_users else two_pets)(session, {}, {})
    await merge(session, kept.id, dropped.id)

    with pytest.raises((UserNotFoundError, PetNotFoundError)) as caught:
        await merge(session, kept.id, dropped.id)

    assert caught.value.key == dropped.id


@pytest.mark.parametrize("merge", [merge_users, merge_pets])
async def test_a_row_that_a_host_table_refers_to_is_not_merged_away(empty_url: URL, merge: Merge) -> None:
    table = "user" if merge is merge_users else "pet"
    async with Database(empty_url) as db:
        await db.create_tables()
        async with db.transaction() as session:
            kept, dropped = await (two_users if merge is merge_users else two_pets)(session, {}, {"notes": "old"})
            pet = await create_pet(session, PetCreate(name="Max", owner_id=dropped.id if table == "user" else None))
        async with db.engine.begin() as connection:
            references = f"FOREIGN KEY (row_id) REFERENCES {quoted(db, table)} (id)"
            await connection.exec_driver_sql(
                f"CREATE TABLE clinic (id INTEGER PRIMARY KEY, row_id INTEGER, {references})"
            )
            await connection.exec_driver_sql(f"INSERT INTO clinic VALUES (1, {dropped.id})")

        with pytest.raises(ConflictError, match="another table") as caught:
            async with db.transaction() as session:
                await merge(session, kept.id, dropped.id)

        assert type(caught.value) is ConflictError
        async with db.reading() as session:
            assert (await get_pet(session, pet.id)).model_dump() == pet.model_dump()
            assert (await session.exec(select(type(kept).notes).order_by(col(type(kept).id)))).all()[:2] == [
                None,
                "old",
            ]


# Transactions and sessions.


@pytest.mark.parametrize("merge", [merge_users, merge_pets])
async def test_a_dry_run_reports_the_same_and_writes_nothing(db: Database, merge: Merge) -> None:
    async with db.transaction() as session:
        kept, dropped = await (two_users if merge is merge_users else two_pets)(
            session, {"external_ref": "S1"}, {"external_ref": "S2", "notes": "old"}
        )
        if merge is merge_users:
            await create_pet(session, PetCreate(name="Max", owner_id=dropped.id))

    async with db.reading() as session:  # It can not even write.
        dry = await merge(session, kept.id, dropped.id, dry_run=True)
        assert dry.kept.model_dump() == kept.model_dump()
        other = await session.get(type(dropped), dropped.id)
        assert other.model_dump() == dropped.model_dump()
        with pytest.raises(StorageError):
            await merge(session, kept.id, dropped.id)

    async with db.transaction() as session:
        wet = await merge(session, kept.id, dropped.id)
    assert (dry.dropped_id, dry.filled, dry.conflicts) == (wet.dropped_id, wet.filled, wet.conflicts)
    assert (dry.moved_pets, dry.dry_run, wet.dry_run) == (wet.moved_pets, True, False)
    assert dry.moved_pets == (merge is merge_users)


async def test_a_rollback_takes_a_merge_back(db: Database) -> None:
    async with db.transaction() as session:
        kept, dropped = await two_users(session, {}, {"email": "ada@example.com"})
        pet = await create_pet(session, PetCreate(name="Rex", owner_id=dropped.id))
        twin = await create_pet(session, PetCreate(name="Rex", microchip="985141000123456"))

    async with db.transaction() as session:
        savepoint = await session.begin_nested()
        await merge_users(session, kept.id, dropped.id)
        await merge_pets(session, pet.id, twin.id)
        await savepoint.rollback()
        assert (await get_user(session, dropped.id, with_pets=True)).pets == [await get_pet(session, pet.id)]

    async with db.reading() as session:
        for row in (kept, dropped, pet, twin):
            found = await session.get(type(row), row.id)
            assert found.model_dump() == row.model_dump()


async def test_the_session_forgets_the_loser_and_knows_the_winner(session: AsyncSession) -> None:
    kept, dropped = await two_users(session, {}, {"city": "Rome"})
    pet = await create_pet(session, PetCreate(name="Rex", owner_id=dropped.id))
    await session.refresh(pet, ["owner"])
    await session.refresh(kept, ["pets"])
    assert (pet.owner, kept.pets) == (dropped, [])

    report = await merge_users(session, kept.id, dropped.id)

    assert dropped not in session
    assert report.kept is kept
    assert (kept.city, kept.version, pet.owner_id, pet.version) == ("Rome", 2, kept.id, 2)
    for row, name in ((pet, "owner"), (kept, "pets")):
        assert name not in row.__dict__  # What was loaded is not so any more.
        await session.refresh(row, [name])
    assert (pet.owner, kept.pets) == (kept, [pet])
    pet.weight_g = 4200
    kept.city = "Oslo"
    await session.commit()
    assert (pet.version, kept.version) == (3, 3)


async def test_a_held_pet_that_moved_away_meanwhile_does_not_look_merged(db: Database) -> None:
    async with db.session() as session:
        kept, dropped = await two_users(session, {}, {})
        bob = await create_user(session, UserCreate(name="Bob"))
        pet = await create_pet(session, PetCreate(name="Rex", owner_id=dropped.id))
        await session.commit()
        async with db.transaction() as other:
            await transfer_pet(other, pet.id, bob.id)

        report = await merge_users(session, kept.id, dropped.id)

        assert (report.moved_pets, pet.owner_id, pet.version) == (0, bob.id, 2)


async def test_an_edit_that_waits_in_the_session_is_merged_too(session: AsyncSession) -> None:
    kept, dropped = await two_users(session, {}, {})
    dropped.city = " Rome "
    pet = Pet(name="Rex", owner_id=dropped.id)
    session.add(pet)

    report = await merge_users(session, kept.id, dropped.id)

    assert (report.filled, report.moved_pets, pet.owner_id) == ({"city": "Rome"}, 1, kept.id)


async def test_a_copy_of_the_winner_read_before_is_stale_afterwards(db: Database) -> None:
    async with db.transaction() as session:
        kept, dropped = await two_users(session, {}, {"city": "Rome"})

    with pytest.raises(StaleVersionError):
        async with db.session() as session:
            stale = await get_user(session, kept.id)
            await session.commit()
            async with db.transaction() as other:
                await merge_users(other, kept.id, dropped.id)
            stale.phone = "12345"
            await count_users(session)
