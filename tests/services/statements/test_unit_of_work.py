"""Services fire the events to which an application listens, and write the same as without a listener."""

import io
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import event
from sqlalchemy.orm import Mapper, Session
from sqlmodel import col, select

import sqlmodel_alembic_async as package
from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    InvalidValueError,
    Pet,
    PetCreate,
    PetNotFoundError,
    PetUpdate,
    StaleVersionError,
    StorageError,
    User,
    UserCreate,
    UserHasPetsError,
    UserNotFoundError,
    UserUpdate,
    anonymise_user,
    archive_pet,
    archive_user,
    create_pet,
    create_pets,
    create_user,
    create_users,
    delete_pet,
    delete_user,
    get_pet,
    import_pets,
    list_pets,
    merge_pets,
    merge_users,
    restore_pet,
    restore_user,
    transfer_pet,
    update_pet,
    update_user,
    upsert_pet,
    upsert_pets,
    upsert_user,
    upsert_users,
)
from sqlmodel_alembic_async.services.statements import unit_of_work

from ...changes import CHANGES, Held, rolled_back
from ...conftest import Statements
from ..heard import MAPPER_EVENTS, heard

PAGE = Path(__file__).parents[3] / "docs" / "events.md"
CHIP = "985141000123456"
DAY = date(2020, 1, 1)
NOBODY = 2_000_000_000


class Refused(Exception):  # noqa: N818  # it is no mistake
    """A listener of the application raises it."""


async def new_rows(session: AsyncSession) -> Held:
    ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com", notes="calls at noon"))
    bob = await create_user(session, UserCreate(name="Bob"))
    rex = await create_pet(
        session, PetCreate(name="Rex", owner_id=ada.id, acquired_on=DAY, external_ref="S1", notes="Ada's")
    )
    max_ = await create_pet(session, PetCreate(name="Max", species="dog"))
    return Held(ada, bob, rex, await archive_pet(session, max_.id))


@pytest.fixture
async def held(session: AsyncSession) -> Held:
    held = await new_rows(session)
    await session.commit()
    return held


@contextmanager
def listening(target: Any, name: str, listener: Callable[..., None], **options: Any) -> Iterator[None]:
    event.listen(target, name, listener, **options)
    try:
        yield
    finally:
        event.remove(target, name, listener)


Call = Callable[[AsyncSession, Held], Awaitable[object]]
FILE = "external_ref,name,owner_name,owner_email\nS1,Imported,Adam,ada@example.com\nS2,New,New,new@example.com\n"


async def upsert_one_user(session: AsyncSession, held: Held) -> User:
    await upsert_user(session, UserCreate(name="New", external_ref="U1"))
    return (await upsert_user(session, UserCreate(name="Eve", email="ada@example.com"), by="email"))[0]


async def upsert_one_pet(session: AsyncSession, held: Held) -> Pet:
    await upsert_pet(session, PetCreate(name="New", external_ref="P1", owner_id=held.ada.id))
    return (await upsert_pet(session, PetCreate(name="Rex", external_ref="S1", owner_id=held.bob.id)))[0]


CALLS: dict[str, Call] = {
    "create_user": lambda s, held: create_user(s, UserCreate(name="New")),
    "create_users": lambda s, held: create_users(s, [UserCreate(name="New"), UserCreate(name="Newer")]),
    "create_pet": lambda s, held: create_pet(s, PetCreate(name="New", owner_id=held.ada.id)),
    "create_pets": lambda s, held: create_pets(s, [PetCreate(name="New", microchip=CHIP), PetCreate(name="Newer")]),
    "update_user": lambda s, held: update_user(s, held.ada.id, UserUpdate(name="Eve"), expected_version=1),
    "archive_user": lambda s, held: archive_user(s, held.ada.id),
    "restore_user": lambda s, held: restore_user(s, held.ada.id),
    "update_pet": lambda s, held: update_pet(s, held.rex.id, PetUpdate(name="Rex")),  # As it is.
    "archive_pet": lambda s, held: archive_pet(s, held.max.id),  # Again.
    "restore_pet": lambda s, held: restore_pet(s, held.max.id),
    "transfer_pet": lambda s, held: transfer_pet(s, held.rex.id, held.bob.id, on=DAY),  # With the same day.
    "delete_user": lambda s, held: delete_user(s, held.ada.id, pets="release"),
    "delete_pet": lambda s, held: delete_pet(s, held.rex.id),
    "merge_users": lambda s, held: merge_users(s, held.bob.id, held.ada.id),
    "merge_pets": lambda s, held: merge_pets(s, held.rex.id, held.max.id),
    "anonymise_user": lambda s, held: anonymise_user(s, held.ada.id),
    "upsert_user": upsert_one_user,
    "upsert_users": lambda s, held: upsert_users(
        s,
        [UserCreate(name="New", email="new@example.com"), UserCreate(name="Eve", email="ada@example.com")],
        by="email",
    ),
    "upsert_pet": upsert_one_pet,
    "upsert_pets": lambda s, held: upsert_pets(
        s, [PetCreate(name="New", external_ref="P1"), PetCreate(name="Rex", external_ref="S1", owner_id=held.bob.id)]
    ),
    "import_pets": lambda s, held: import_pets(s, io.StringIO(FILE)),
}


READ_FIRST = {"merge_users", "merge_pets", "upsert_user", "upsert_users", "upsert_pet", "upsert_pets", "import_pets"}


def documented() -> dict[str, dict[str, set[str]]]:
    """Return what the page says: for each service, the classes of the rows of each kind of change."""
    found = {}
    for line in re.findall(r"^\| `.*\|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        services, *cells = [re.findall(r"`(\w+)`", cell) for cell in line.strip("|").split("|")]
        if len(cells) == 3:
            kinds = dict(zip(("insert", "update", "delete"), map(set, cells), strict=True))
            found |= dict.fromkeys(services, kinds)
    return found


def test_the_page_names_every_service_that_writes() -> None:
    verbs = (
        "create_",
        "update_",
        "archive_",
        "restore_",
        "transfer_",
        "delete_",
        "merge_",
        "anonymise_",
        "upsert_",
        "import_",
    )
    writing = {name for name in package.__all__ if name.startswith(verbs)}

    assert documented().keys() == CALLS.keys() == writing


@pytest.mark.parametrize("service", CALLS)
async def test_each_service_fires_the_events_that_the_page_says(
    session: AsyncSession, held: Held, service: str
) -> None:
    with heard() as found:
        await CALLS[service](session, held)

    expected = {
        (f"{moment}_{kind}", model)
        for kind, models in documented()[service].items()
        for model in models
        for moment in ("before", "after")
    }
    assert {(name, model) for name, model, _ in found} == expected
    assert all(row_id for name, _, row_id in found if name != "before_insert")


@pytest.mark.parametrize("service", CALLS)
async def test_each_service_fires_the_events_of_a_flush(session: AsyncSession, held: Held, service: str) -> None:
    for name in ("before_flush", "after_flush", "after_flush_postexec"):
        calls: list[object] = []
        async with session.begin_nested() as savepoint:
            with listening(session.sync_session, name, lambda *arguments, calls=calls: calls.append(arguments)):
                await CALLS[service](session, held)
            await savepoint.rollback()
        assert calls, name


def shown(row: Any) -> Any:
    """Return the values of a row, or else the class of a result, without what differs from run to run."""
    if not isinstance(row, User | Pet):
        return type(row)
    values = row.model_dump(exclude={"id", "created_at"})
    return {name: value if name == "acquired_on" else is_shown(name, value) for name, value in values.items()}


def is_shown(name: str, value: object) -> object:
    return value is not None if name in ("owner_id", "archived_at", "updated_at") else value


async def outcome_of(service: str, session: AsyncSession) -> list[Any]:
    """Return what a service returns, and what it leaves in the session and in the database, and undo it."""
    async with session.begin_nested() as savepoint:
        held = await new_rows(session)
        earlier = [(row, row.version, row.updated_at) for row in held]
        result = shown(await CALLS[service](session, held))
        in_session = [shown(row) for row in held if row in session]
        are_stamped = [row.updated_at > moment for row, version, moment in earlier if row.version > version]
        session.expunge_all()
        stored = [shown(row) for row in await session.exec(select(User).order_by(col(User.id)))]
        stored += [shown(row) for row in await session.exec(select(Pet).order_by(col(Pet.id)))]
        await savepoint.rollback()
    return [result, in_session, are_stamped, stored]


@pytest.mark.parametrize("service", CALLS)
async def test_a_service_writes_the_same_whether_somebody_listens_or_not(session: AsyncSession, service: str) -> None:
    expected = await outcome_of(service, session)
    with heard() as found:
        assert await outcome_of(service, session) == expected

    assert found
    assert all(expected[2])


@pytest.mark.parametrize("name", CHANGES)
async def test_what_is_written_by_a_flush_is_undone_with_its_savepoint(
    session: AsyncSession, held: Held, name: str
) -> None:
    before = held.values()
    with heard():
        async with rolled_back(session):
            await CHANGES[name](session, held)

    assert held.values() == before


async def test_the_errors_are_the_same(session: AsyncSession, held: Held) -> None:
    chip = await create_pet(session, PetCreate(name="Chip", microchip=CHIP, birth_date=DAY))
    await session.commit()
    works: list[tuple[type[Exception], Callable[[], Awaitable[object]]]] = [
        (AlreadyExistsError, lambda: create_user(session, UserCreate(name="Twin", email="ada@example.com"))),
        (AlreadyExistsError, lambda: create_pets(session, [PetCreate(name="Twin", microchip=CHIP)])),
        (AlreadyExistsError, lambda: update_pet(session, held.rex.id, PetUpdate(microchip=CHIP))),
        (UserNotFoundError, lambda: create_pet(session, PetCreate(name="Lost", owner_id=NOBODY))),
        (UserNotFoundError, lambda: transfer_pet(session, held.rex.id, NOBODY)),
        (UserNotFoundError, lambda: update_user(session, NOBODY, UserUpdate(name="Eve"))),
        (PetNotFoundError, lambda: archive_pet(session, NOBODY)),
        (PetNotFoundError, lambda: archive_pet(session, -1)),
        (PetNotFoundError, lambda: delete_pet(session, NOBODY)),
        (UserHasPetsError, lambda: delete_user(session, held.ada.id)),
        (StaleVersionError, lambda: update_pet(session, held.rex.id, PetUpdate(name="W"), expected_version=7)),
        # The shape does not know what is stored.
        (InvalidValueError, lambda: update_pet(session, chip.id, PetUpdate(deceased_on=DAY))),
    ]
    for error, work in works:
        raised = []
        for listeners in (nullcontext(), heard()):
            with listeners:
                with pytest.raises(error) as caught:
                    async with session.begin_nested():
                        await work()
                raised.append((str(caught.value), vars(caught.value)))
        assert raised[0] == raised[1]


async def test_the_kind_of_change_to_which_nobody_listens_stays_fast(
    session: AsyncSession, held: Held, statements: Statements, engine_name: str
) -> None:
    takes_the_lock = engine_name == "sqlite"  # In a plain session, which does not begin with it.
    with heard("before_update"):
        assert await statements.taken_by(create_pets(session, [PetCreate(name="New")] * 1000)) == 1
        assert await statements.taken_by(delete_pet(session, held.rex.id)) == 1
        update = update_user(session, held.ada.id, UserUpdate(name="Eve"))
        assert await statements.taken_by(update) == 2 + takes_the_lock
    with heard("after_insert", "after_delete"):
        assert await statements.taken_by(create_pet(session, PetCreate(name="New"))) == 1
        assert await statements.taken_by(create_pets(session, [PetCreate(name="New")] * 300)) == (
            300 if engine_name == "sqlite" else 2
        )
        assert await statements.taken_by(delete_pet(session, held.max.id)) == 2 + takes_the_lock


KINDS: tuple[unit_of_work.Kind, ...] = ("insert", "update", "delete")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_listener_of_one_kind_of_change_is_noticed_for_its_class(moment: str, kind: str) -> None:
    session = AsyncSession()

    def noticed() -> set[tuple[type, str]]:
        return {(model, kind) for model in (User, Pet) for kind in KINDS if unit_of_work.is_heard(session, model, kind)}

    assert noticed() == set()
    with listening(User, f"{moment}_{kind}", lambda *arguments: None):
        assert noticed() == {(User, kind)}
    with listening(Mapper, f"{moment}_{kind}", lambda *arguments: None):
        assert noticed() == {(User, kind), (Pet, kind)}
    assert noticed() == set()


@pytest.mark.parametrize("name", ["before_flush", "after_flush", "after_flush_postexec"])
def test_a_listener_of_flushes_is_noticed_for_its_sessions(name: str) -> None:
    session, other = AsyncSession(), AsyncSession()

    def noticed() -> list[bool]:
        return [unit_of_work.is_heard(each, Pet, kind) for each in (session, other) for kind in KINDS]

    assert noticed() == [False] * 6
    with listening(session.sync_session, name, lambda *arguments: None):
        assert noticed() == [True] * 3 + [False] * 3
    with listening(Session, name, lambda *arguments: None):
        assert noticed() == [True] * 6
    assert noticed() == [False] * 6


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize("name", ["before_flush", "of the mapper"])
async def test_a_listener_that_raises_leaves_nothing_behind(
    session: AsyncSession, held: Held, name: str, service: str
) -> None:
    def refuse(*arguments: object) -> None:
        raise Refused

    before = held.values()
    targets = [(session.sync_session, name)]
    if name == "of the mapper":
        targets = [(model, event) for model in (User, Pet) for event in MAPPER_EVENTS if event.startswith("before")]
    with ExitStack() as listeners:
        for target in targets:
            listeners.enter_context(listening(*target, refuse))
        with pytest.raises(Refused):
            async with session.begin_nested():
                await CALLS[service](session, held)
    assert [*session.new, *session.dirty, *session.deleted] == []
    assert held.values() == before
    await session.commit()
    assert {pet.name for pet in (await list_pets(session, archived=None)).items} == {"Rex", "Max"}


async def test_what_a_listener_changes_is_stored(session: AsyncSession, held: Held) -> None:
    def note(mapper: object, connection: object, pet: Pet) -> None:
        pet.notes = "seen"

    with listening(Pet, "before_update", note), listening(Pet, "before_insert", note):
        await update_pet(session, held.rex.id, PetUpdate(notes="new"))
        new = await create_pet(session, PetCreate(name="New"))
    assert {(await get_pet(session, pet.id)).notes for pet in (held.rex, new)} == {"seen"}


async def test_what_a_listener_changes_before_the_validation_is_validated(session: AsyncSession, held: Held) -> None:
    def spoil(mapper: object, connection: object, pet: Pet) -> None:
        pet.name = " "

    with listening(Pet, "before_update", spoil, insert=True), pytest.raises(ValidationError):
        await update_pet(session, held.rex.id, PetUpdate(color="red"))


async def test_a_read_only_session_refuses_a_write_before_any_sql(
    db: Database, held: Held, statements: Statements
) -> None:
    with heard():
        for service in CALLS.keys() - READ_FIRST:
            async with db.reading() as reader:
                before = len(statements)
                with pytest.raises(StorageError):
                    await CALLS[service](reader, held)
                assert len(statements) == before, service
