"""The filters: what changed since a moment, searches, and what help() says of them."""

import inspect
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    PetFilters,
    PetUpdate,
    UserCreate,
    UserFilters,
    UserUpdate,
    archive_pet,
    count_pets,
    count_users,
    create_pet,
    create_pets,
    create_user,
    create_users,
    delete_user,
    list_pets,
    list_users,
    pet_statistics,
    restore_pet,
    stream_pets,
    stream_users,
    transfer_pet,
    update_pet,
    update_user,
)

CHIP = "985141000123456"


async def test_lists_counts_and_streams_give_what_changed_since(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex"))
    await create_user(session, UserCreate(name="Ada"))
    mia = await create_pet(session, PetCreate(name="Mia"))
    bob = await create_user(session, UserCreate(name="Bob"))

    for since in (mia.updated_at, mia.updated_at.astimezone(timezone(timedelta(hours=14)))):
        assert [pet.name for pet in (await list_pets(session, changed_since=since)).items] == ["Mia"]
        assert [pet.name async for pet in stream_pets(session, changed_since=since)] == ["Mia"]
        assert await count_pets(session, changed_since=since) == 1
        assert (await pet_statistics(session, changed_since=since)).total == 1
    assert await count_pets(session, changed_since=mia.updated_at + timedelta(microseconds=1)) == 0
    assert await count_pets(session, changed_since=mia.updated_at, name_prefix="r") == 0
    assert [user.name for user in (await list_users(session, changed_since=bob.updated_at)).items] == ["Bob"]
    assert [user.name async for user in stream_users(session, changed_since=bob.updated_at)] == ["Bob"]
    assert await count_users(session, changed_since=bob.updated_at) == 1


@pytest.mark.parametrize(
    ("since", "number"), [(datetime.min, 1), (datetime(1970, 1, 1), 1), (datetime(9999, 1, 1), 0), (datetime.max, 0)]
)
async def test_every_moment_is_understood(session: AsyncSession, since: datetime, number: int) -> None:
    await create_pet(session, PetCreate(name="Rex"))

    assert await count_pets(session, changed_since=since.replace(tzinfo=UTC)) == number


@pytest.mark.parametrize("since", [datetime(2026, 1, 1), "2026-01-01T00:00:00Z", 0])
async def test_a_moment_without_a_time_zone_is_refused(session: AsyncSession, since: datetime) -> None:
    for work in (
        list_pets(session, changed_since=since),
        count_pets(session, changed_since=since),
        count_users(session, changed_since=since),
        anext(stream_pets(session, changed_since=since)),
    ):
        with pytest.raises(ValidationError):
            await work


async def rename(session: AsyncSession, pet: Pet) -> None:
    pet.name = "Max"
    await session.flush()


@pytest.mark.parametrize(
    "change",
    [
        rename,
        lambda session, pet: update_pet(session, pet.id, PetUpdate(color="red")),
        lambda session, pet: transfer_pet(session, pet.id, pet.owner_id),
        lambda session, pet: archive_pet(session, pet.id),
        lambda session, pet: restore_pet(session, pet.id),
        lambda session, pet: delete_user(session, pet.owner_id, pets="release"),
    ],
)
async def test_every_kind_of_change_is_seen(
    session: AsyncSession, change: Callable[[AsyncSession, Pet], Awaitable[object]]
) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    pet = await create_pet(session, PetCreate(name="Rex", owner_id=ada.id))
    last = pet.updated_at + timedelta(microseconds=1)
    assert await count_pets(session, changed_since=last) == 0

    await change(session, pet)

    assert await count_pets(session, changed_since=last, archived=None) == 1


async def test_a_change_to_a_user_is_seen(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada"))
    last = ada.updated_at + timedelta(microseconds=1)

    await update_user(session, ada.id, UserUpdate(city="London"))

    assert await count_users(session, changed_since=last) == 1


async def test_what_changed_since_is_served_by_the_index(db: Database, engine_name: str) -> None:
    async with db.transaction() as session:
        await create_pets(session, (PetCreate(name="Rex") for _ in range(5000)))
        since = (await create_pet(session, PetCreate(name="Rex"))).updated_at
        await create_pets(session, (PetCreate(name="Rex") for _ in range(20)))
    asked: list[tuple[str, object]] = []

    def note(connection: object, cursor: object, statement: str, parameters: object, *rest: object) -> None:
        asked.append((statement, parameters))

    async with db.reading() as session:
        cursor = (await list_pets(session, order_by="updated_at", limit=10, changed_since=since, archived=None)).next
        event.listen(db.engine.sync_engine, "before_cursor_execute", note)
        assert len((await list_pets(session, order_by="updated_at", changed_since=since)).items) == 21
        assert await count_pets(session, changed_since=since) == 21
        assert await count_pets(session, changed_since=since, archived=None) == 21
        rest = await list_pets(session, order_by="updated_at", after=cursor, changed_since=since, archived=None)
        assert len(rest.items) == 11
        event.remove(db.engine.sync_engine, "before_cursor_execute", note)
    selects = [(statement, parameters) for statement, parameters in asked if statement.startswith("SELECT")]
    async with db.engine.connect() as connection:
        plans = [await plan_of(connection, engine_name, *select) for select in selects]

    assert len(plans) == 4
    assert [plan for plan in plans if "ix_pet_updated_at_id" not in plan] == []
    assert [plan for plan in plans if "TEMP B-TREE" in plan or "filesort" in plan or "Sort" in plan] == []


async def plan_of(connection: AsyncConnection, engine_name: str, statement: str, parameters: object) -> str:
    """Return which index is read, and what is done with what it gives."""
    if engine_name == "mariadb":
        await connection.exec_driver_sql("ANALYZE TABLE pet")
        [row] = (await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)).mappings()
        assert row["type"] == "range"
        return f"{row['key']} {row['Extra']}"
    if engine_name == "sqlite":
        return str((await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)).all())
    await connection.exec_driver_sql("ANALYZE pet")
    return str((await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)).all())


async def names_found(session: AsyncSession, **filters: str) -> list[str]:
    return [user.name for user in (await list_users(session, **filters)).items]


@pytest.mark.parametrize(
    ("prefix", "found", "others"),
    [
        ("rex", ["Rex", "rexine"], ["rey", "rew", "re"]),
        # The next code point after U+D7FF that a text may hold is U+E000.
        ("a\ud7ff", ["a\ud7ff", "a\ud7ffb"], ["a\ue000", "a\ud7fb", "a"]),
        ("a\U0010ffff", ["a\U0010ffff", "a\U0010ffffb"], ["a\U0010fffd", "b"]),
        ("\U0010ffff", ["\U0010ffffa"], ["a"]),
    ],
)
async def test_a_prefix_finds_what_begins_with_it_and_nothing_else(
    session: AsyncSession, prefix: str, found: list[str], others: list[str]
) -> None:
    await create_users(session, [UserCreate(name=name) for name in (*found, *others)])

    assert await names_found(session, name_prefix=prefix) == found


async def test_the_character_that_escapes_others_is_literal_too(session: AsyncSession) -> None:
    await create_users(session, [UserCreate(name=name) for name in ("a/b", "ab", "a//b", "a/%b")])

    assert await names_found(session, name_contains="a/b") == ["a/b"]
    assert await names_found(session, name_contains="//") == ["a//b"]
    assert await names_found(session, name_contains="/%") == ["a/%b"]


async def test_none_does_not_filter(session: AsyncSession) -> None:
    owner = await create_user(session, UserCreate(name="Ada"))
    full = PetCreate(
        name="Rex",
        owner_id=owner.id,
        species="dog",
        breed="Pug",
        sex="male",
        birth_date=date(2020, 1, 1),
        microchip=CHIP,
    )
    await create_pets(session, [full, PetCreate(name="Max", status="missing")])
    unfiltered = dict.fromkeys(set(PetFilters.__annotations__) - {"archived"})

    assert unfiltered.keys() >= {"owner_id", "species", "breed_known", "changed_since", "name_prefix"}
    for name in unfiltered:
        assert await count_pets(session, **{name: None}) == 2
    assert await count_pets(session, **unfiltered) == 2
    assert [pet.name async for pet in stream_pets(session, **unfiltered)] == ["Max", "Rex"]
    assert (await pet_statistics(session, **unfiltered)).total == 2
    assert await count_users(session, name_prefix=None, name_contains=None, changed_since=None) == 1
    await archive_pet(session, (await list_pets(session)).items[0].id)
    assert await count_pets(session, **unfiltered) == 1
    assert await count_pets(session, archived=None, **unfiltered) == 2


async def test_what_is_known_can_be_asked_for(session: AsyncSession) -> None:
    pets = [
        PetCreate(name="Rex", species="dog", breed="Pug"),
        PetCreate(name="Max", species="dog"),
        PetCreate(name="It"),
    ]
    await create_pets(session, pets)

    async def found(**filters: Any) -> list[str]:
        return [pet.name for pet in (await list_pets(session, order_by="id", **filters)).items]

    assert await found(species_known=True) == ["Rex", "Max"]
    assert await found(species_known=False) == ["It"]
    assert await found(breed_known=True) == ["Rex"]
    assert await found(breed_known=False) == ["Max", "It"]
    assert await found(breed_known=False, species="Dog") == ["Max"]
    assert await found(species_known=False, species="dog") == []
    assert await count_pets(session, species_known=False) == 1


@pytest.mark.parametrize("blank", ["", "  ", "\u00a0"])
async def test_a_blank_text_is_refused(session: AsyncSession, blank: str) -> None:
    for name in ("species", "breed", "name_prefix", "name_contains"):
        with pytest.raises(ValidationError) as caught:
            await count_pets(session, **{name: blank})
        assert [error["loc"] for error in caught.value.errors()] == [(name,)]
    for name in ("name_prefix", "name_contains"):
        with pytest.raises(ValidationError):
            await list_users(session, **{name: blank})
    with pytest.raises(ValidationError, match="use species_known or breed_known"):
        await count_pets(session, species="")


@pytest.mark.parametrize("name", sorted(PetFilters.__annotations__))
async def test_the_error_for_a_filter_does_not_quote_the_value(session: AsyncSession, name: str) -> None:
    for value in ("Grace Hopper\0", {"Grace Hopper": 1}, ["Grace Hopper"]):
        for service in (
            list_pets,
            count_pets,
            pet_statistics,
            *[list_users][name not in UserFilters.__annotations__ :],
        ):
            with pytest.raises(ValidationError) as caught:
                await service(session, **{name: value})

            assert "Grace" not in f"{caught.value} {caught.value!r}"
            assert str(caught.value).startswith(f"1 validation error for {service_filters(service)}\n{name}\n")


def service_filters(service: object) -> str:
    return "UserFilters" if service is list_users else "PetFilters"


@pytest.mark.parametrize(("function", "filters"), [(list_users, UserFilters), (list_pets, PetFilters)])
def test_help_explains_every_filter(function: object, filters: type) -> None:
    items = re.findall(r"\* (`.*?`): ", inspect.getdoc(function) or "")

    assert sorted(re.findall(r"`([a-z_]+)`", " ".join(items))) == sorted(filters.__annotations__)
