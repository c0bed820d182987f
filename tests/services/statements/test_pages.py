"""Orders, cursors and pages."""

import asyncio
import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import get_args

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    InvalidCursorError,
    OrderBy,
    Pet,
    PetCreate,
    UserCreate,
    count_pets,
    create_pet,
    create_pets,
    create_users,
    delete_pet,
    list_pets,
    list_users,
)


async def walk(session: AsyncSession, order_by: OrderBy, limit: int) -> list[int]:
    """Return the ids of all pages."""
    ids: list[int] = []
    after = None
    while True:
        page = await list_pets(session, order_by=order_by, limit=limit, after=after)
        ids += [pet.id for pet in page.items if pet.id is not None]
        if (after := page.next) is None:
            return ids


@pytest.mark.parametrize("order_by", get_args(OrderBy))
async def test_pages_give_each_row_once_in_the_order_of_the_whole(session: AsyncSession, order_by: OrderBy) -> None:
    await create_pets(session, (PetCreate(name="rex" if number % 3 else f"Max {number}") for number in range(500)))

    ids = await walk(session, order_by, 70)

    whole = (await list_pets(session, order_by=order_by, limit=1000)).items
    attribute = {"name": "name_key"}.get(order_by.lstrip("-"), order_by.lstrip("-"))
    expected = sorted(whole, key=lambda pet: (getattr(pet, attribute), pet.id), reverse=order_by.startswith("-"))
    assert ids == [pet.id for pet in whole] == [pet.id for pet in expected]


@pytest.mark.parametrize("order_by", ["name", "-name"])
async def test_pages_give_each_row_once_while_others_insert_and_delete(db: Database, order_by: OrderBy) -> None:
    async with db.transaction() as session:
        await create_pets(session, (PetCreate(name="Rex") for _ in range(3000)))
    async with db.reading() as session:
        before = set(await walk(session, "id", 1000))
    deleted: set[int] = set()
    walking = True

    async def disturb() -> None:
        for victim in sorted(before)[::17]:
            async with db.transaction() as session:
                await delete_pet(session, victim)
                await create_pet(session, PetCreate(name="Rex"))
                await create_pet(session, PetCreate(name="Ace"))
            deleted.add(victim)
            if not walking:
                return

    disturbance = asyncio.create_task(disturb())
    seen: list[int] = []
    after = None
    while True:
        async with db.reading() as session:
            page = await list_pets(session, order_by=order_by, limit=100, after=after)
        seen += [pet.id for pet in page.items if pet.id is not None]
        if (after := page.next) is None:
            break
    walking = False
    await disturbance

    assert deleted
    assert len(seen) == len(set(seen))
    assert before - deleted <= set(seen)


async def test_the_last_page_has_no_next(session: AsyncSession) -> None:
    await create_pets(session, [PetCreate(name="Rex"), PetCreate(name="Max")])

    assert (await list_pets(session, limit=2)).next is None
    assert (await list_pets(session, limit=1)).next is not None
    assert (await list_users(session)).next is None


async def test_an_offset_counts_rows(session: AsyncSession) -> None:
    await create_pets(session, [PetCreate(name=name) for name in "abcde"])

    page = await list_pets(session, offset=2, limit=2)
    assert [pet.name for pet in page.items] == ["c", "d"]
    assert [pet.name for pet in (await list_pets(session, after=page.next)).items] == ["e"]
    assert (await list_pets(session, offset=5)).items == []


@pytest.mark.parametrize(
    "options",
    [
        *({"limit": limit} for limit in (0, -1, True, 1001, 1.0, "5", None, 2**63)),
        *({"offset": offset} for offset in (-1, True, 2**31, 2**63, 1.5, None)),
        *(
            {"order_by": order}
            for order in ("name_key", "version", "--id", "+id", "password", "metadata", "pets", None)
        ),
    ],
)
async def test_a_bad_option_is_refused(session: AsyncSession, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        await list_pets(session, **options)


async def test_a_cursor_and_an_offset_exclude_each_other(session: AsyncSession) -> None:
    await create_pets(session, [PetCreate(name="Rex"), PetCreate(name="Max")])
    cursor = (await list_pets(session, limit=1)).next

    with pytest.raises(ValueError, match="cannot be combined"):
        await list_pets(session, after=cursor, offset=1)


def forged(*payload: object) -> str:
    raw = json.dumps(payload).encode()
    return base64.urlsafe_b64encode(hashlib.blake2s(raw, digest_size=6).digest() + raw).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("order_by", "cursor"),
    [
        *(("name", cursor) for cursor in ("", "x", "!!", "\ud800", "é", "a" * 5000, 7, b"abc")),
        *(
            ("name", forged(*payload))
            for payload in ((), ("pet",), ("pet", "name", "rex", "1"), ("pet", "name", None, 1))
        ),
        *(("name", forged("pet", "name", name, 1)) for name in ("a\0", "\ud800", 7, ["a"])),
        *(("name", forged("pet", "name", "rex", row_id)) for row_id in (0, True, 2**63, 1.5, None)),
        ("name", forged({"pet": 1})),
        ("created_at", forged("pet", "created_at", "yesterday", 1)),
        ("created_at", forged("pet", "created_at", "0001-01-01T00:00:00+14:00", 1)),
        ("created_at", forged("pet", "created_at", 5, 1)),
        ("id", forged("pet", "id", 1.5, 1)),
        ("id", forged("pet", "name", "rex", 1)),
        ("name", forged("user", "name", "rex", 1)),
    ],
)
async def test_a_malformed_cursor_is_refused(session: AsyncSession, order_by: OrderBy, cursor: str) -> None:
    with pytest.raises(InvalidCursorError):
        await list_pets(session, order_by=order_by, after=cursor)


async def test_a_cursor_that_nests_deeply_is_refused(session: AsyncSession) -> None:
    for depth in (3000, 200_000):
        raw = b"[" * depth
        cursor = base64.urlsafe_b64encode(hashlib.blake2s(raw, digest_size=6).digest() + raw).rstrip(b"=").decode()

        with pytest.raises(InvalidCursorError):
            await list_pets(session, after=cursor)


async def test_the_cursor_of_the_longest_name_is_accepted(session: AsyncSession) -> None:
    await create_pets(session, [PetCreate(name="\U0001f43e" * 100), PetCreate(name="\ufdfa" * 100)] * 2)

    assert len(await walk(session, "name", 1)) == 4


async def test_a_tampered_cursor_is_refused(session: AsyncSession) -> None:
    await create_pets(session, [PetCreate(name="Rex"), PetCreate(name="Max")])
    cursor = (await list_pets(session, limit=1)).next
    assert cursor is not None

    for place in range(len(cursor)):
        for other in ("A", "b", "_", ""):
            tampered = cursor[:place] + other + cursor[place + 1 :]
            if tampered != cursor:
                with pytest.raises(InvalidCursorError):
                    await list_pets(session, after=tampered)
    with pytest.raises(InvalidCursorError):
        await list_pets(session, after=cursor + "=")


async def test_a_cursor_of_another_list_or_order_is_refused(session: AsyncSession) -> None:
    await create_pets(session, [PetCreate(name="Rex"), PetCreate(name="Max")])
    await create_users(session, [UserCreate(name="Ada"), UserCreate(name="Bob")])
    cursor = (await list_pets(session, limit=1)).next

    for work in (list_users(session, after=cursor), list_pets(session, order_by="-name", after=cursor)):
        with pytest.raises(InvalidCursorError):
            await work
    assert len((await list_pets(session, after=cursor)).items) == 1
    assert await count_pets(session) == 2


async def test_pages_and_prefixes_are_served_by_the_index(db: Database, engine_name: str) -> None:
    async with db.transaction() as session:
        await create_pets(session, (PetCreate(name=f"Rex {number % 100}") for number in range(5000)))
        cursor = (await list_pets(session, limit=1000)).next
    texts: list[str] = []

    def note(connection: object, cursor: object, statement: str, parameters: object, *rest: object) -> None:
        texts.append((statement, parameters))

    event.listen(db.engine.sync_engine, "before_cursor_execute", note)
    async with db.reading() as session:
        await list_pets(session, after=cursor)
        await list_pets(session, name_prefix="Rex 7")
    event.remove(db.engine.sync_engine, "before_cursor_execute", note)
    explain = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN ", "mariadb": "EXPLAIN "}[engine_name]
    async with db.engine.connect() as connection:
        if engine_name == "postgresql":
            await connection.exec_driver_sql("ANALYZE pet")
        for statement, parameters in texts:
            if statement.startswith("SELECT"):
                plan = (await connection.exec_driver_sql(explain + statement, parameters)).all()
                assert "ix_pet_name_key_id" in str(plan), plan


async def test_a_page_asks_for_one_row_more_than_it_gives(db: Database) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []

    def note(connection: object, cursor: object, statement: str, parameters: tuple[object, ...], *rest: object) -> None:
        asked.append((statement, tuple(parameters)))

    async with db.transaction() as session:
        await create_pets(session, [PetCreate(name="Rex") for _ in range(9)])
        event.listen(db.engine.sync_engine, "before_cursor_execute", note)
        first = await list_pets(session, limit=5)
        second = await list_pets(session, limit=5, after=first.next)
        third = await list_pets(session, limit=5, offset=7)
        event.remove(db.engine.sync_engine, "before_cursor_execute", note)

    assert [len(page.items) for page in (first, second, third)] == [5, 4, 2]
    assert len(asked) == 3
    assert all(" LIMIT " in " ".join(statement.split()) and 6 in parameters for statement, parameters in asked)
    assert [7 in parameters for _, parameters in asked] == [False, False, True]


@pytest.mark.parametrize("engine_name", ["mariadb"], indirect=True)
@pytest.mark.parametrize("dialect", ["mysql", "mariadb"])
@pytest.mark.parametrize("order_by", ["name", "-updated_at"])
async def test_a_page_deep_in_a_list_reads_a_range_of_mariadbs_index(
    db: Database, migrated_url: URL, dialect: str, order_by: OrderBy
) -> None:
    async with db.transaction() as session:
        await create_pets(session, (PetCreate(name=f"Rex {number}") for number in range(3000)))
    asked: list[tuple[str, object]] = []

    def note(connection: object, cursor: object, statement: str, parameters: object, *rest: object) -> None:
        asked.append((statement, parameters))

    async with Database(migrated_url.set(drivername=f"{dialect}+asyncmy")) as named:
        async with named.reading() as session:
            first = await list_pets(session, order_by=order_by, limit=1000)
            event.listen(named.engine.sync_engine, "before_cursor_execute", note)
            second = await list_pets(session, order_by=order_by, limit=10, after=first.next)
        async with named.engine.connect() as connection:
            await connection.exec_driver_sql("ANALYZE TABLE pet")
            [statement] = [asked_for for asked_for in asked if asked_for[0].startswith("SELECT")]
            [plan] = (await connection.exec_driver_sql(f"EXPLAIN {statement[0]}", statement[1])).mappings()

    assert named.engine.dialect.name == dialect
    assert plan["type"] == "range"
    assert {pet.id for pet in first.items} & {pet.id for pet in second.items} == set()


async def test_these_are_the_orders(session: AsyncSession) -> None:
    orders = ("name", "-name", "created_at", "-created_at", "updated_at", "-updated_at", "id", "-id")

    assert get_args(OrderBy) == orders
    for order_by in orders:
        assert (await list_pets(session, order_by=order_by)).items == []
    with pytest.raises(ValueError, match=rf"^order_by must be one of {', '.join(orders)}$"):
        await list_pets(session, order_by="names")


async def test_the_limits_are_told_and_are_allowed(session: AsyncSession) -> None:
    for options in ({"limit": 1}, {"limit": 1000}, {"offset": 0}, {"offset": 2_147_483_647}):
        assert (await list_pets(session, **options)).items == []
    with pytest.raises(ValueError, match=r"^limit must be an integer from 1 to 1000$"):
        await list_pets(session, limit=1001)
    with pytest.raises(ValueError, match=r"^offset must be an integer from 0 to 2147483647$"):
        await list_pets(session, offset=2_147_483_648)


@pytest.mark.parametrize(
    ("order_by", "place"),
    [
        ("name", ["m", 1]),
        ("-name", ["m", 2**31 - 1]),
        ("created_at", ["2026-01-02T03:04:05.678901+00:00", 1]),
        ("created_at", ["2026-01-02T04:04:05.678901+01:00", 1]),
        ("id", [1, 1]),
    ],
)
async def test_a_cursor_reads_as_it_was_written(session: AsyncSession, order_by: OrderBy, place: list[object]) -> None:
    session.add(Pet(name="M", id=2, created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)))
    await session.flush()

    page = await list_pets(session, order_by=order_by, after=forged("pet", order_by, *place))

    assert [pet.id for pet in page.items] == [2]
