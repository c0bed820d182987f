"""Upserts at once, while an application listens to events in both sessions, in one of them, or in none."""

import asyncio
from contextlib import nullcontext

import pytest
from sqlalchemy import event

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    UpsertReport,
    UserCreate,
    UserUpdate,
    create_user,
    create_users,
    delete_user,
    get_user,
    list_users,
    update_user,
    upsert_user,
    upsert_users,
)

from .heard import heard

on_servers = pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
LISTENING = [(True, True), (True, False), (False, True)]


def rows(**values: str) -> list[UserCreate]:
    return [
        UserCreate(name=f"User {number}", external_ref=f"S{number:04}", email=f"{number}@example.com", **values)
        for number in range(600)
    ]


async def synchronise(db: Database, users: list[UserCreate], listens: bool) -> UpsertReport:
    async with db.transaction() as session:
        if listens:
            event.listen(session.sync_session, "after_flush", lambda *arguments: None)
        return await upsert_users(session, users)


@on_servers
@pytest.mark.parametrize("listening", LISTENING)
@pytest.mark.parametrize("stored", [0, 3, 1])
async def test_two_of_the_same_users_wait_for_each_other(
    db: Database, listening: tuple[bool, bool], stored: int
) -> None:
    """Also where some are stored, in another order."""
    async with db.transaction() as session:
        await create_users(session, rows()[::-stored] if stored else [])
    works = zip((rows(city="Rome"), rows(phone="12345")), listening, strict=True)

    reports = await asyncio.gather(*(synchronise(db, *work) for work in works))

    assert sum(report.created for report in reports) == 600 - len(rows()[:: stored or 600]) * bool(stored)
    async with db.reading() as session:
        users = (await list_users(session, limit=1000)).items
    assert len(users) == 600
    assert {(user.city, user.phone) for user in users} == {("Rome", "12345")}


@on_servers
@pytest.mark.parametrize("listening", LISTENING)
async def test_two_of_neighbouring_users_do_not_disturb_each_other(db: Database, listening: tuple[bool, bool]) -> None:
    works = zip((rows()[::2], rows()[1::2]), listening, strict=True)

    reports = await asyncio.gather(*(synchronise(db, *work) for work in works))

    assert reports == [UpsertReport(300, 0, 0)] * 2


@on_servers
async def test_the_second_one_fires_no_event_of_an_insert(db: Database) -> None:
    has_written = asyncio.Event()

    async def first() -> None:
        async with db.transaction() as session:
            await upsert_user(session, UserCreate(name="Ada", external_ref="S1", city="Rome"))
            has_written.set()
            await asyncio.sleep(0.2)

    async def second() -> None:
        await has_written.wait()
        async with db.transaction() as session:
            await upsert_users(session, [UserCreate(name="Ada", external_ref="S1", phone="12345")])

    with heard() as found:
        await asyncio.gather(first(), second())

    assert [name for name, _, _ in found] == ["before_insert", "after_insert", "before_update", "after_update"]


WORKS = {
    "get": lambda session, user_id: get_user(session, user_id, for_update=True),
    "update": lambda session, user_id: update_user(session, user_id, UserUpdate(city="Oslo")),
    "delete": lambda session, user_id: delete_user(session, user_id, pets="release"),
    "create": lambda session, user_id: create_user(session, UserCreate(name="New", external_ref="S2")),
    "upsert": lambda session, user_id: upsert_user(session, UserCreate(name="Ada", external_ref="S1", city="Oslo")),
    "upsert many": lambda session, user_id: upsert_users(session, [UserCreate(name="New", external_ref="S2")]),
}


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("listens", [False, True])
async def test_a_session_that_waits_for_a_lock_can_be_cancelled(db: Database, work: str, listens: bool) -> None:
    """On SQLite, too, where a read before the lock would be a conflict."""
    async with db.transaction() as session:
        user_id = (await create_user(session, UserCreate(name="Ada", external_ref="S1"))).id

    async def wait() -> None:
        async with db.session() as session:
            await WORKS[work](session, user_id)

    with heard() if listens else nullcontext():
        async with db.transaction() as session:
            await get_user(session, user_id, for_update=True)  # type: ignore[arg-type]
            await create_user(session, UserCreate(name="Held", external_ref="S2"))
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0.2)
            waiting.cancel()
            await asyncio.wait([waiting], timeout=5)
            assert waiting.cancelled()
        async with asyncio.timeout(5), db.transaction() as session:
            await change_both(session)
    assert db.engine.pool.checkedout() == 0


async def change_both(session: AsyncSession) -> None:
    for ref, name in (("S1", "Bea"), ("S2", "Max")):
        user, outcome = await upsert_user(session, UserCreate(name=name, external_ref=ref))
        assert (outcome, user.version) == ("updated", 2)
