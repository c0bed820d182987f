"""Users and pets that are created or updated by a key of theirs, also while another transaction does the same."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    InvalidValueError,
    Pet,
    PetCreate,
    PetDeceasedError,
    PetUpdate,
    StorageError,
    TransactionConflictError,
    UpsertReport,
    User,
    UserCreate,
    UserNotFoundError,
    UserUpdate,
    archive_pet,
    archive_user,
    count_pets,
    count_users,
    create_pet,
    create_user,
    create_users,
    delete_user,
    find_user_by_email,
    get_pet,
    get_user,
    list_pets,
    list_users,
    update_pet,
    update_user,
    upsert_pet,
    upsert_pets,
    upsert_user,
    upsert_users,
)

from ..conftest import Statements

NOBODY = 2_000_000_000
CHIP = "985141000123456"
OTHER_CHIP = "985141000123457"


async def one_user(session: AsyncSession, data: UserCreate, **options: Any) -> str:
    return (await upsert_user(session, data, **options))[1]


async def many_users(session: AsyncSession, data: UserCreate, **options: Any) -> str:
    return outcome_of(await upsert_users(session, [data], **options))


async def one_pet(session: AsyncSession, data: PetCreate, **options: Any) -> str:
    return (await upsert_pet(session, data, **options))[1]


async def many_pets(session: AsyncSession, data: PetCreate, **options: Any) -> str:
    return outcome_of(await upsert_pets(session, [data], **options))


def outcome_of(report: UpsertReport) -> str:
    [name] = [name for name, number in dataclasses.asdict(report).items() if number]
    return name


# A single row and a batch mean the same.
both_for_users = pytest.mark.parametrize("upsert", [one_user, many_users])
both_for_pets = pytest.mark.parametrize("upsert", [one_pet, many_pets])
UpsertUser = Callable[..., Awaitable[str]]


async def the_user(session: AsyncSession) -> User:
    [user] = (await list_users(session, archived=None)).items
    return user


async def the_pet(session: AsyncSession) -> Pet:
    [pet] = (await list_pets(session, archived=None)).items
    return pet


@both_for_users
async def test_a_user_is_created_changed_and_left(session: AsyncSession, upsert: UpsertUser) -> None:
    assert await upsert(session, UserCreate(name=" Ada ", external_ref="S1", email="ADA@example.com")) == "created"
    first = (await the_user(session)).model_dump()
    assert (first["name"], first["name_key"], first["email"], first["version"]) == ("Ada", "ada", "ada@example.com", 1)
    assert first["created_at"] == first["updated_at"]

    assert await upsert(session, UserCreate(name="Ada", external_ref=" S1", email="ada@Example.com")) == "unchanged"
    assert (await the_user(session)).model_dump() == first

    assert await upsert(session, UserCreate(name="ADA", external_ref="S1", city="Rome")) == "updated"
    changed = (await the_user(session)).model_dump()
    assert changed["updated_at"] > first["updated_at"]
    new = {"name": "ADA", "city": "Rome", "version": 2, "updated_at": changed["updated_at"]}
    assert changed == first | new


@both_for_pets
async def test_none_and_what_is_not_given_change_nothing(session: AsyncSession, upsert: UpsertUser) -> None:
    full = PetCreate(
        name="Rex",
        external_ref="S1",
        species="dog",
        sex="male",
        neutered=True,
        status="missing",
        weight_g=7,
        birth_date=date(2020, 2, 2),
        birth_date_estimated=True,
        microchip=CHIP,
        notes="good\nboy",
    )
    assert await upsert(session, full) == "created"
    before = (await the_pet(session)).model_dump()
    assert full.model_dump().items() <= before.items()

    assert await upsert(session, PetCreate(name="Rex", external_ref="S1")) == "unchanged"
    nothing = dict.fromkeys(("species", "breed", "weight_g", "birth_date", "microchip", "neutered", "notes"))
    assert await upsert(session, PetCreate(name="Rex", external_ref="S1", **nothing)) == "unchanged"

    assert (await the_pet(session)).model_dump() == before
    assert await upsert(session, PetCreate(name="Rex", external_ref="S1", status="active", neutered=False)) == "updated"
    after = (await the_pet(session)).model_dump()
    assert (after["status"], after["neutered"], after["sex"], after["version"]) == ("active", False, "male", 2)


@both_for_users
async def test_a_user_is_found_by_an_email_in_any_case(session: AsyncSession, upsert: UpsertUser) -> None:
    await create_user(session, UserCreate(name="Ada", email="ada@example.com", external_ref="old"))

    data = UserCreate(name="Ada", email="ADA@example.com", external_ref="new")
    assert await upsert(session, data, by="email") == "updated"

    user = await find_user_by_email(session, "ada@example.com")
    assert user is not None
    assert (user.external_ref, await count_users(session)) == ("new", 1)


@both_for_pets
async def test_a_pet_is_found_by_a_chip_in_any_spelling(session: AsyncSession, upsert: UpsertUser) -> None:
    await create_pet(session, PetCreate(name="Rex", microchip=CHIP))

    assert await upsert(session, PetCreate(name="Max", microchip="985-141 000.123 456"), by="microchip") == "updated"
    assert await upsert(session, PetCreate(name="Leo", microchip=OTHER_CHIP), by="microchip") == "created"

    assert sorted(pet.name for pet in (await list_pets(session)).items) == ["Leo", "Max"]


@both_for_users
async def test_an_archived_row_is_changed_and_stays_archived(session: AsyncSession, upsert: UpsertUser) -> None:
    user = await create_user(session, UserCreate(name="Ada", external_ref="S1"))
    archived_at = (await archive_user(session, user.id)).archived_at

    assert await upsert(session, UserCreate(name="Bea", external_ref="S1")) == "updated"

    assert (user.name, user.archived_at, await count_users(session)) == ("Bea", archived_at, 0)


@both_for_pets
async def test_another_owner_is_a_transfer(session: AsyncSession, upsert: UpsertUser) -> None:
    ada, bob = [await create_user(session, UserCreate(name=name)) for name in ("Ada", "Bob")]
    day = date(2020, 2, 2)

    def rex(**values: Any) -> PetCreate:
        return PetCreate(name="Rex", external_ref="S1", **values)

    for data, outcome, owner, since in (
        (rex(owner_id=ada.id, acquired_on=day), "created", ada.id, day),
        (rex(owner_id=ada.id), "unchanged", ada.id, day),
        (rex(), "unchanged", ada.id, day),
        (rex(owner_id=bob.id), "updated", bob.id, None),
        (rex(owner_id=ada.id, acquired_on=day), "updated", ada.id, day),
        (rex(owner_id=ada.id, status="deceased"), "updated", ada.id, day),
        (rex(owner_id=ada.id, notes="old"), "updated", ada.id, day),
    ):
        assert await upsert(session, data) == outcome
        pet = await the_pet(session)
        assert (pet.owner_id, pet.acquired_on) == (owner, since)
    with pytest.raises(PetDeceasedError) as caught:
        await upsert(session, rex(owner_id=bob.id))
    assert caught.value.pet_id == pet.id


@both_for_pets
@pytest.mark.parametrize(
    ("known", "is_estimate", "given", "gives_estimate", "expected"),
    [
        (date(2020, 2, 2), False, date(2020, 1, 1), True, (date(2020, 2, 2), False)),
        (date(2020, 2, 2), False, date(2021, 1, 1), True, (date(2021, 1, 1), True)),
        (date(2020, 2, 2), True, date(2020, 1, 1), True, (date(2020, 1, 1), True)),
        (date(2020, 2, 2), True, date(2020, 3, 3), None, (date(2020, 3, 3), False)),
        (date(2020, 2, 2), True, date(2020, 2, 2), None, (date(2020, 2, 2), True)),
        (date(2020, 2, 2), True, date(2020, 2, 2), False, (date(2020, 2, 2), False)),
        (None, False, date(2020, 1, 1), True, (date(2020, 1, 1), True)),
        (date(2020, 2, 2), True, None, None, (date(2020, 2, 2), True)),
    ],
)
async def test_a_birth_date_becomes_more_exact_and_not_less(
    session: AsyncSession,
    upsert: UpsertUser,
    known: date | None,
    is_estimate: bool,
    given: date | None,
    gives_estimate: bool | None,
    expected: tuple[date, bool],
) -> None:
    pet = PetCreate(name="Rex", external_ref="S1", birth_date=known, birth_date_estimated=is_estimate)
    await upsert(session, pet)
    estimate = {} if gives_estimate is None else {"birth_date_estimated": gives_estimate}

    await upsert(session, PetCreate(name="Rex", external_ref="S1", birth_date=given, **estimate))

    stored = await the_pet(session)
    assert (stored.birth_date, stored.birth_date_estimated) == expected


@both_for_pets
async def test_values_that_contradict_the_stored_ones_are_refused(db: Database, upsert: UpsertUser) -> None:
    async with db.transaction() as session:
        data = PetCreate(name="Rex", external_ref="S1", status="deceased", deceased_on=date(2021, 1, 1))
        await create_pet(session, data)

    with pytest.raises(InvalidValueError) as caught:
        async with db.transaction() as session:
            await upsert(session, PetCreate(name="Rex", external_ref="S1", status="active"))
    assert caught.value.constraint == "ck_pet_deceased_on"


@both_for_pets
async def test_an_owner_who_does_not_exist_is_refused(db: Database, upsert: UpsertUser) -> None:
    async with db.transaction() as session:
        await create_pet(session, PetCreate(name="Rex", external_ref="S1"))

    for ref in ("S1", "new"):
        with pytest.raises(UserNotFoundError) as caught:
            async with db.transaction() as session:
                await upsert(session, PetCreate(name="Rex", external_ref=ref, owner_id=NOBODY))
        assert caught.value.key == (NOBODY if upsert is one_pet else None)


@both_for_users
@pytest.mark.parametrize("ref", ["S1", "new"])
async def test_another_unique_value_that_is_taken_is_named(db: Database, upsert: UpsertUser, ref: str) -> None:
    async with db.transaction() as session:
        await create_user(session, UserCreate(name="Ada", external_ref="S1"))
        await create_user(session, UserCreate(name="Bob", email="bob@example.com"))

    with pytest.raises(AlreadyExistsError) as caught:
        async with db.transaction() as session:
            await upsert(session, UserCreate(name="Bob", external_ref=ref, email="bob@example.com"))

    assert caught.value.field == "email"
    async with db.reading() as session:
        users = [(user.name, user.external_ref, user.email) for user in (await list_users(session)).items]
    assert users == [("Ada", "S1", None), ("Bob", None, "bob@example.com")]


@both_for_users
async def test_after_an_error_the_transaction_can_only_be_rolled_back(db: Database, upsert: UpsertUser) -> None:
    async with db.transaction() as session:
        await create_user(session, UserCreate(name="Bob", email="bob@example.com"))
        async with session.begin_nested():
            assert await upsert(session, UserCreate(name="Ada", external_ref="S1")) == "created"
        with pytest.raises(AlreadyExistsError):
            async with session.begin_nested():
                await upsert(session, UserCreate(name="Bea", external_ref="S2", email="bob@example.com"))

    async with db.reading() as session:
        assert [user.name for user in (await list_users(session)).items] == ["Ada", "Bob"]


async def test_a_row_without_the_key_is_refused(session: AsyncSession) -> None:
    with pytest.raises(ValueError, match="has no external_ref"):
        await upsert_user(session, UserCreate(name="Ada", email="ada@example.com"))
    with pytest.raises(ValueError, match="has no email"):
        await upsert_user(session, UserCreate(name="Ada", email=" ", external_ref="S1"), by="email")
    with pytest.raises(ValueError, match="has no microchip"):
        await upsert_pets(session, [PetCreate(name="Rex", microchip=CHIP), PetCreate(name="Rex")], by="microchip")
    for work in (
        upsert_user(session, UserCreate(name="Ada"), by="microchip"),  # type: ignore[arg-type]
        upsert_users(session, [], by="name"),  # type: ignore[arg-type]
        upsert_pet(session, PetCreate(name="Ada"), by="email"),  # type: ignore[arg-type]
        upsert_pets(session, [], by="id"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="by must be one of external_ref, "):
            await work
    assert await count_users(session) == await count_pets(session) == 0


async def test_each_takes_the_statements_it_promises(db: Database, statements: Statements, engine_name: str) -> None:
    on_mariadb = engine_name == "mariadb"
    cost = statements.taken_by
    ada = UserCreate(name="Ada", external_ref="S1")

    def users(count: int, **values: Any) -> list[UserCreate]:
        return [UserCreate(name=f"User {number}", external_ref=f"U{number}", **values) for number in range(count)]

    async with db.transaction() as session:
        assert await cost(upsert_user(session, ada)) == 2
        assert await cost(upsert_user(session, ada)) == 1
        assert await cost(upsert_user(session, UserCreate(name="Bea", external_ref="S1"))) == 2 + on_mariadb
        session.expunge_all()
        assert await cost(upsert_users(session, users(1000))) == 2
        assert await cost(upsert_users(session, users(1000))) == 1
        assert await cost(upsert_users(session, users(1000, city="Rome"))) == 2 + 2 * on_mariadb
        assert await cost(upsert_users(session, users(500, city="Oslo") + users(1000)[500:])) == 2 + on_mariadb
        mixed = users(400, city="Bern") + [UserCreate(name="New", external_ref=f"N{number}") for number in range(600)]
        assert await cost(upsert_users(session, mixed)) == 2 + on_mariadb
        assert await cost(upsert_users(session, users(1500))) == 1 + 2
        assert await cost(upsert_users(session, [])) == 0
        assert await count_users(session) == 2101
    async with db.session() as session:
        assert await cost(upsert_user(session, ada)) == 1 + (engine_name == "sqlite") + 1 + on_mariadb


async def test_the_report_counts_rows(session: AsyncSession) -> None:
    await create_users(session, [UserCreate(name="Ada", external_ref="S1"), UserCreate(name="Bob", external_ref="S2")])

    rows = [("Ada", "S1"), ("Bea", "S2"), ("Eve", "S3"), ("Leo", "S4"), ("Kim", "S5")]
    report = await upsert_users(session, (UserCreate(name=name, external_ref=ref) for name, ref in rows))

    assert report == UpsertReport(created=3, updated=1, unchanged=1)
    assert [user.name for user in (await list_users(session)).items] == ["Ada", "Bea", "Eve", "Kim", "Leo"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.created = 0  # type: ignore[misc]


async def test_rows_with_one_key_are_applied_one_after_the_other(session: AsyncSession) -> None:
    await create_user(session, UserCreate(name="Ada", external_ref="S1"))

    def row(ref: str, **values: str) -> UserCreate:
        return UserCreate(**{"name": "Ada", "external_ref": ref, **values})

    rows = [row("S1", city="Rome"), row("S2", name="Bob"), row("S1", phone="12345"), row("S2", name="BEN", city="Oslo")]
    report = await upsert_users(session, [*rows, row("S1", city="Bern"), row("S1"), row("S2", name="BEN")])

    assert report == UpsertReport(created=1, updated=4, unchanged=2)
    users = [
        (user.name, user.name_key, user.city, user.phone, user.version) for user in (await list_users(session)).items
    ]
    assert users == [("Ada", "ada", "Bern", "12345", 2), ("BEN", "ben", "Oslo", None, 1)]
    back = await upsert_users(session, [row("S1", city="Oslo"), row("S1", city="Bern")])
    assert back == UpsertReport(created=0, updated=2, unchanged=0)
    assert (await list_users(session)).items[0].version == 2


async def test_a_new_pet_that_changes_its_owner_within_the_rows(session: AsyncSession) -> None:
    ada, bob = [await create_user(session, UserCreate(name=name)) for name in ("Ada", "Bob")]
    rows = [
        PetCreate(name="Rex", external_ref="S1", owner_id=ada.id, acquired_on=date(2020, 2, 2), status="deceased"),
        PetCreate(name="Rex", external_ref="S1", owner_id=bob.id),
    ]

    assert await upsert_pets(session, rows) == UpsertReport(1, 1, 0)

    pet = await the_pet(session)
    assert (pet.owner_id, pet.acquired_on, pet.version) == (bob.id, None, 1)


# The session.


async def test_the_row_is_the_one_that_the_session_holds(session: AsyncSession) -> None:
    created, _ = await upsert_user(session, UserCreate(name="Ada", external_ref="S1"))
    updated, _ = await upsert_user(session, UserCreate(name="Bea", external_ref="S1"))
    unchanged, _ = await upsert_user(session, UserCreate(name="Bea", external_ref="S1"))

    assert created is updated is unchanged
    assert created in session
    assert (created.name, created.version, created.archived_at) == ("Bea", 2, None)
    await upsert_users(session, [UserCreate(name="Eve", external_ref="S1"), UserCreate(name="New", external_ref="S2")])
    assert (created.name, created.version) == ("Eve", 3)
    assert not session.dirty
    created.city = "Rome"
    await session.commit()
    await session.refresh(created)
    assert (created.city, created.version) == ("Rome", 4)


async def test_an_edit_that_waits_is_written_first(session: AsyncSession) -> None:
    user = await create_user(session, UserCreate(name="Ada", external_ref="S1"))
    session.add(User(name="Bob", external_ref="S2"))
    user.city = "Rome"

    rows = [UserCreate(name="Ada", external_ref="S1", phone="12345"), UserCreate(name="Bob", external_ref="S2")]
    assert await upsert_users(session, rows) == UpsertReport(0, 1, 1)

    assert (user.city, user.phone, user.version) == ("Rome", "12345", 3)


@both_for_users
async def test_a_rollback_undoes_it_in_memory_too(session: AsyncSession, upsert: UpsertUser) -> None:
    ada = await create_user(session, UserCreate(name="Ada", external_ref="S1"))
    savepoint = await session.begin_nested()
    await upsert(session, UserCreate(name="Bea", external_ref="S1"))
    await upsert(session, UserCreate(name="New", external_ref="S2"))
    new = (await list_users(session, name_prefix="new")).items[0]
    await savepoint.rollback()

    assert (ada.name, ada.version) == ("Ada", 1)
    assert new not in session
    assert await count_users(session) == 1
    ada.city = "Rome"
    await session.flush()
    assert (ada.city, ada.version) == ("Rome", 2)


async def test_a_read_only_session_writes_nothing(db: Database) -> None:
    for work in (upsert_user, one_user, many_users):
        with pytest.raises(StorageError):
            async with db.reading() as session:
                await work(session, UserCreate(name="Ada", external_ref="S1"))


# Two at once.


async def merged(db: Database) -> dict[str | None, tuple[str, str | None, str | None, int]]:
    async with db.reading() as session:
        users = (await list_users(session, limit=1000)).items
        return {user.external_ref: (user.name, user.city, user.phone, user.version) for user in users}


@both_for_users
@pytest.mark.parametrize("begins_early", [True, False])
async def test_two_that_create_one_user_make_one_row(db: Database, upsert: UpsertUser, begins_early: bool) -> None:
    """The second one waits for the first one, and then applies its values to the new row."""
    outcomes = []
    first_wrote = asyncio.Event()

    async def second() -> None:
        async with db.transaction() as session:
            if begins_early and not first_wrote.is_set():
                assert await count_users(session) == 0  # MariaDB's snapshot is from here.
            await first_wrote.wait()
            data = UserCreate(name="Ada", external_ref="S1", email="ada@example.com", phone="12345")
            outcomes.append(await upsert(session, data))

    async def first() -> None:
        async with db.transaction() as session:
            data = UserCreate(name="Ada", external_ref="S1", email="ada@example.com", city="Rome")
            outcomes.append(await upsert(session, data))
            first_wrote.set()
            await asyncio.sleep(0.2)

    if db.engine.dialect.name == "sqlite":  # The whole transaction waits.
        await first()
        await second()
    else:
        await asyncio.gather(first(), second())

    assert outcomes == ["created", "updated"]
    assert await merged(db) == {"S1": ("Ada", "Rome", "12345", 2)}


@both_for_users
async def test_two_that_change_one_user_both_win(db: Database, upsert: UpsertUser, engine_name: str) -> None:
    async with db.transaction() as session:
        await create_user(session, UserCreate(name="Ada", external_ref="S1"))
    outcomes = []

    async def change(barrier: asyncio.Barrier, **values: str) -> None:
        async with db.transaction() as session:
            if engine_name != "sqlite":
                await get_user(session, (await the_user(session)).id)
                await barrier.wait()
            outcomes.append(await upsert(session, UserCreate(name="Ada", external_ref="S1", **values)))
            await asyncio.sleep(0.05)

    barrier = asyncio.Barrier(4)
    changes = ({"city": "Rome"}, {"phone": "12345"}, {"address": "a"}, {"postal_code": "1"})
    await asyncio.gather(*(change(barrier, **values) for values in changes))

    assert outcomes == ["updated"] * 4
    assert await merged(db) == {"S1": ("Ada", "Rome", "12345", 5)}


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)  # Those of SQLite do not overlap.
@both_for_users
async def test_a_user_that_is_deleted_meanwhile_is_created_anew(db: Database, upsert: UpsertUser) -> None:
    """It has nothing of the deleted row."""
    async with db.transaction() as session:
        user = await create_user(session, UserCreate(name="Ada", external_ref="S1", notes="private"))
    deleted = asyncio.Event()

    async def delete() -> None:
        async with db.transaction() as session:
            await delete_user(session, user.id)
            deleted.set()
            await asyncio.sleep(0.2)

    async def change() -> str:
        async with db.transaction() as session:
            await count_users(session)
            await deleted.wait()
            return await upsert(session, UserCreate(name="Ada", external_ref="S1", city="Rome"))

    _, outcome = await asyncio.gather(delete(), change())

    assert outcome == "created"
    async with db.reading() as session:
        new = await the_user(session)
    assert (new.notes, new.city, new.version, new.id != user.id) == (None, "Rome", 1, True)


async def test_many_synchronisations_at_once_lose_and_double_nothing(db: Database) -> None:
    """Each knows another column of the same hundred users."""
    columns = ["city", "phone", "address", "postal_code", "notes", "city"]

    async def synchronise(column: str) -> UpsertReport:
        rows = [
            UserCreate(
                name=f"User {number}",
                external_ref=f"S{number}",
                email=f"{number}@example.com",
                **{column: f"{column[:4]} 12345"},
            )
            for number in range(100)
        ]
        async with db.transaction() as session:
            return await upsert_users(session, rows)

    reports = await asyncio.gather(*map(synchronise, columns))

    assert sum(report.created for report in reports) == 100
    assert sum(report.updated for report in reports) == 400
    assert sum(report.unchanged for report in reports) == 100
    async with db.reading() as session:
        users = (await list_users(session, limit=1000)).items
    assert len(users) == 100
    assert {(user.version, *(getattr(user, column) for column in columns)) for user in users} == {
        (5, *(f"{column[:4]} 12345" for column in columns))
    }


async def test_single_upserts_of_one_key_at_once_make_one_row(db: Database) -> None:
    async def upsert(number: int) -> str:
        async with db.transaction() as session:
            data = UserCreate(name=f"User {number}", external_ref="S1", email="ada@example.com")
            return (await upsert_user(session, data))[1]

    outcomes = await asyncio.gather(*map(upsert, range(10)))

    assert sorted(outcomes) == ["created"] + ["updated"] * 9
    async with db.reading() as session:
        assert (await the_user(session)).version == 10


@pytest.mark.parametrize("engine_name", ["mariadb"], indirect=True)
@both_for_users
async def test_where_an_insert_returns_nothing_the_rows_are_read(
    db: Database, session: AsyncSession, upsert: UpsertUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session.connection()
    monkeypatch.setattr(db.engine.dialect, "insert_executemany_returning", False)
    monkeypatch.setattr(db.engine.dialect, "insert_executemany_returning_sort_by_parameter_order", False)
    await create_user(session, UserCreate(name="Bob", email="bob@example.com"))

    assert await upsert(session, UserCreate(name="Ada", external_ref="S1")) == "created"
    assert await upsert(session, UserCreate(name="Bea", external_ref="S1")) == "updated"
    assert await upsert(session, UserCreate(name="Bea", external_ref="S1")) == "unchanged"
    assert await count_users(session, name_prefix="bea") == 1
    with pytest.raises(AlreadyExistsError):
        await upsert(session, UserCreate(name="Eve", external_ref="S2", email="bob@example.com"))


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
@pytest.mark.parametrize("upsert", [one_user, many_users, one_pet, many_pets])
async def test_a_transaction_that_cannot_see_the_newest_rows_is_a_conflict(db: Database, upsert: UpsertUser) -> None:
    shape = UserCreate if upsert in (one_user, many_users) else PetCreate
    async with db.session() as session:
        assert await count_users(session) == 0
        async with db.transaction() as other:
            await create_user(other, UserCreate(name="Ada", external_ref="S1"))
        with pytest.raises(TransactionConflictError):
            await upsert(session, shape(name="Ada", external_ref="S1"))


async def test_a_change_by_plain_sql_without_a_version_is_seen_at_the_next_call(session: AsyncSession) -> None:
    await upsert_user(session, UserCreate(name="Ada", external_ref="S1", city="Rome"))
    await session.exec(sa.update(User).where(col(User.external_ref) == "S1").values(city="Oslo"))

    assert await one_user(session, UserCreate(name="Ada", external_ref="S1", city="Rome")) == "updated"
    assert (await the_user(session)).city == "Rome"


async def test_an_update_by_other_services_goes_together(session: AsyncSession) -> None:
    pet, _ = await upsert_pet(session, PetCreate(name="Rex", external_ref="S1"))
    assert pet.id is not None
    await update_pet(session, pet.id, PetUpdate(color="red"), expected_version=1)
    await archive_pet(session, pet.id)
    _, outcome = await upsert_pet(session, PetCreate(name="Rex", external_ref="S1", color="red"))

    assert (outcome, (await get_pet(session, pet.id)).version) == ("unchanged", 3)
    user, _ = await upsert_user(session, UserCreate(name="Ada", external_ref="S1"))
    assert user.id is not None
    assert (await update_user(session, user.id, UserUpdate(city="Rome"), expected_version=1)).version == 2


@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_reader_refuses_an_upsert_before_any_statement(
    db: Database, statements: Statements, snapshot: bool
) -> None:
    data = PetCreate(name="Rex", external_ref="p1")
    async with db.transaction() as session:
        await create_pet(session, data)
    before = len(statements)

    async with db.reading(snapshot=snapshot) as session:
        with pytest.raises(StorageError):
            await upsert_pet(session, data)
        with pytest.raises(StorageError):
            await upsert_pets(session, [data, PetCreate(name="Max", external_ref="p2")])

    assert len(statements) == before
