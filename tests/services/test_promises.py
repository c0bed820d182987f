"""Each service raises what its docstring says: one row for each promise, on every engine."""

import inspect
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.engine import URL

import sqlmodel_alembic_async as package
from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    DatabaseError,
    PetCreate,
    PetUpdate,
    UserCreate,
    UserUpdate,
    anonymise_user,
    archive_pet,
    archive_user,
    count_pets,
    count_users,
    create_pet,
    create_pets,
    create_user,
    create_users,
    delete_pet,
    delete_user,
    export_pets,
    find_duplicate_pets,
    find_duplicate_users,
    find_pet_by_microchip,
    find_user_by_email,
    get_pet,
    get_user,
    import_pets,
    list_pets,
    list_users,
    merge_pets,
    merge_users,
    pet_statistics,
    restore_pet,
    restore_user,
    stream_pets,
    stream_users,
    transfer_pet,
    update_pet,
    update_user,
    upsert_pet,
    upsert_pets,
    upsert_user,
    upsert_users,
)

NOBODY = 2_000_000_000


class Boarder(PetCreate):
    """A shape with a field that no column can store."""

    room: int = 1


CHIP = "985141000123456"
AT_ONCE: Any = {"limit": 0}
ADA = UserCreate(name="Ada", email="ada@example.com")
REX = PetCreate(name="Rex", microchip=CHIP)
KEYED_USER = UserCreate(name="Eve", external_ref="S1")
KEYED_PET = PetCreate(name="Leo", external_ref="S1")
# What is stored as Max, and the same with a birth date after the day of the death.
DEAD_CHIP = "985141000123459"
KEYED_DEAD_PET = PetCreate(name="Max", microchip=DEAD_CHIP, external_ref="MAX", birth_date=date(2024, 2, 2))


@dataclass
class Stored:
    """Ada has Rex; Bob has nothing; Max is dead. A host's table `visit` refers to Carl and to Tom."""

    ada: int
    bob: int
    carl: int
    rex: int
    max: int
    tom: int


Call = Callable[[AsyncSession, Stored], Awaitable[object]]


def changed(shape: Any, **values: Any) -> Any:
    """Return a shape that was changed to what it refuses: it does not validate what is assigned."""
    shape = shape.model_copy()
    for name, value in values.items():
        object.__setattr__(shape, name, value)
    shape.model_fields_set.update(values)
    return shape


def with_values(shape: Any, **values: Any) -> Any:
    return type(shape)(**shape.model_dump(exclude_unset=True), **values)


def closed() -> io.StringIO:
    file = io.StringIO()
    file.close()
    return file


async def drained(rows: AsyncIterator[object]) -> None:
    async for _ in rows:
        pass


async def merge_invalid_pets(session: AsyncSession, stored: Stored) -> None:
    await session.exec(text(f"UPDATE pet SET microchip = 'none' WHERE id = {stored.rex}"))  # type: ignore[call-overload]
    await merge_pets(session, stored.rex, stored.max)


async def merge_invalid_users(session: AsyncSession, stored: Stored) -> None:
    user = quoted_user(session)
    await session.exec(text(f"UPDATE {user} SET email = 'none' WHERE id = {stored.ada}"))  # type: ignore[call-overload]
    await merge_users(session, stored.ada, stored.bob)


def quoted_user(session: AsyncSession) -> str:
    return "`user`" if session.get_bind().dialect.name == "mysql" else '"user"'


TYPE_ERRORS: dict[str, Call] = {
    "anonymise_user": lambda s, x: anonymise_user(s, "1"),  # type: ignore[arg-type]
    "archive_pet": lambda s, x: archive_pet(s, True),
    "archive_user": lambda s, x: archive_user(s, 1.0),  # type: ignore[arg-type]
    "count_pets": lambda s, x: count_pets(s, colour="red"),  # type: ignore[call-arg]
    "count_users": lambda s, x: count_users(s, owner_id=1),  # type: ignore[call-arg]
    "create_pet": lambda s, x: create_pet(s, {"name": "Rex"}),  # type: ignore[arg-type]
    "create_pets": lambda s, x: create_pets(s, [REX, Boarder(name="Leo")]),
    "create_user": lambda s, x: create_user(s, REX),  # type: ignore[arg-type]
    "create_users": lambda s, x: create_users(s, [{"name": "Ada"}]),  # type: ignore[list-item]
    "delete_pet": lambda s, x: delete_pet(s, "1"),  # type: ignore[arg-type]
    "delete_user": lambda s, x: delete_user(s, None),  # type: ignore[arg-type]
    "export_pets": lambda s, x: export_pets(s, io.StringIO(), colour="red"),  # type: ignore[call-arg]
    "get_pet": lambda s, x: get_pet(s, "1"),  # type: ignore[arg-type]
    "get_user": lambda s, x: get_user(s, "1"),  # type: ignore[arg-type]
    "import_pets": lambda s, x: import_pets(s, io.BytesIO(b"name\nRex\n")),  # type: ignore[arg-type]
    "list_pets": lambda s, x: list_pets(s, colour="red"),  # type: ignore[call-arg]
    "list_users": lambda s, x: list_users(s, species="dog"),  # type: ignore[call-arg]
    "merge_pets": lambda s, x: merge_pets(s, "1", x.rex),  # type: ignore[arg-type]
    "merge_users": lambda s, x: merge_users(s, x.ada, "1"),  # type: ignore[arg-type]
    "pet_statistics": lambda s, x: pet_statistics(s, colour="red"),  # type: ignore[call-arg]
    "restore_pet": lambda s, x: restore_pet(s, "1"),  # type: ignore[arg-type]
    "restore_user": lambda s, x: restore_user(s, "1"),  # type: ignore[arg-type]
    "stream_pets": lambda s, x: drained(stream_pets(s, colour="red")),  # type: ignore[call-arg]
    "stream_users": lambda s, x: drained(stream_users(s, species="dog")),  # type: ignore[call-arg]
    "transfer_pet": lambda s, x: transfer_pet(s, x.rex, "1"),  # type: ignore[arg-type]
    "update_pet": lambda s, x: update_pet(s, x.rex, UserUpdate(name="Max")),  # type: ignore[arg-type]
    "update_user": lambda s, x: update_user(s, x.ada, {"name": "Bob"}),  # type: ignore[arg-type]
    "upsert_pet": lambda s, x: upsert_pet(s, Boarder(name="Leo", external_ref="S1")),
    "upsert_pets": lambda s, x: upsert_pets(s, [KEYED_PET, ADA]),  # type: ignore[list-item]
    "upsert_user": lambda s, x: upsert_user(s, REX),  # type: ignore[arg-type]
    "upsert_users": lambda s, x: upsert_users(s, [{"name": "Ada"}]),  # type: ignore[list-item]
}
VALIDATION_ERRORS: dict[str, Call] = {
    "count_pets": lambda s, x: count_pets(s, name_prefix="\0"),
    "count_users": lambda s, x: count_users(s, archived="yes"),  # type: ignore[arg-type]
    "create_pet": lambda s, x: create_pet(s, changed(REX, name="")),
    "create_pets": lambda s, x: create_pets(s, [REX, changed(REX, weight_g=0)]),
    "create_user": lambda s, x: create_user(s, changed(ADA, email="ada")),
    "create_users": lambda s, x: create_users(s, [changed(ADA, name=None)]),
    "export_pets": lambda s, x: export_pets(s, io.StringIO(), owner_id=0),
    "find_pet_by_microchip": lambda s, x: find_pet_by_microchip(s, "12"),
    "find_user_by_email": lambda s, x: find_user_by_email(s, "ada"),
    "merge_pets": lambda s, x: merge_invalid_pets(s, x),
    "merge_users": lambda s, x: merge_invalid_users(s, x),
    "list_pets": lambda s, x: list_pets(s, sex="none"),  # type: ignore[arg-type]
    "list_users": lambda s, x: list_users(s, changed_since="yesterday"),  # type: ignore[arg-type]
    "pet_statistics": lambda s, x: pet_statistics(s, owner_id=0),
    "stream_pets": lambda s, x: drained(stream_pets(s, born_from="soon")),  # type: ignore[arg-type]
    "stream_users": lambda s, x: drained(stream_users(s, name_contains=7)),  # type: ignore[arg-type]
    "transfer_pet": lambda s, x: transfer_pet(s, x.rex, x.bob, on="today"),  # type: ignore[arg-type]
    "update_pet": lambda s, x: update_pet(s, x.rex, changed(PetUpdate(), sex=None)),
    "update_user": lambda s, x: update_user(s, x.ada, changed(UserUpdate(), name="\0")),
    "upsert_pet": lambda s, x: upsert_pet(s, changed(KEYED_PET, weight_g=0)),
    "upsert_pets": lambda s, x: upsert_pets(s, [KEYED_PET, changed(KEYED_PET, name="")]),
    "upsert_user": lambda s, x: upsert_user(s, changed(KEYED_USER, name=None)),
    "upsert_users": lambda s, x: upsert_users(s, [changed(KEYED_USER, email="ada")]),
}
VALUE_ERRORS: dict[str, Call] = {
    "create_pet": lambda s, x: create_pet(s, REX, on_similar="ask"),  # type: ignore[arg-type]
    "create_user": lambda s, x: create_user(s, ADA, on_similar="ask"),  # type: ignore[arg-type]
    "delete_user": lambda s, x: delete_user(s, x.bob, pets="delete"),  # type: ignore[arg-type]
    "export_pets": lambda s, x: export_pets(s, closed()),
    "import_pets": lambda s, x: import_pets(s, io.StringIO("name\n"), placeholder_names="ask"),  # type: ignore[arg-type]
    "list_pets": lambda s, x: list_pets(s, **AT_ONCE),
    "list_users": lambda s, x: list_users(s, after="x", offset=1),
    "merge_pets": lambda s, x: merge_pets(s, x.rex, x.rex),
    "merge_users": lambda s, x: merge_users(s, x.ada, x.ada),
    "stream_pets": lambda s, x: drained(stream_pets(s, order_by="age")),  # type: ignore[arg-type]
    "stream_users": lambda s, x: drained(stream_users(s, order_by="email")),  # type: ignore[arg-type]
    "upsert_pet": lambda s, x: upsert_pet(s, REX),
    "upsert_pets": lambda s, x: upsert_pets(s, [KEYED_PET], by="microchip"),
    "upsert_user": lambda s, x: upsert_user(s, ADA, by="name"),  # type: ignore[arg-type]
    "upsert_users": lambda s, x: upsert_users(s, [ADA]),
}
OTHERS: dict[tuple[str, str], Call] = {
    ("anonymise_user", "UserNotFoundError"): lambda s, x: anonymise_user(s, NOBODY),
    ("archive_pet", "PetNotFoundError"): lambda s, x: archive_pet(s, NOBODY),
    ("archive_user", "UserNotFoundError"): lambda s, x: archive_user(s, 0),
    ("create_pet", "AlreadyExistsError"): lambda s, x: create_pet(s, REX),
    ("create_pet", "SimilarExistsError"): lambda s, x: create_pet(s, REX, on_similar="error"),
    ("create_pet", "UserNotFoundError"): lambda s, x: create_pet(s, PetCreate(name="Rex", owner_id=NOBODY)),
    ("create_pets", "AlreadyExistsError"): lambda s, x: create_pets(s, [PetCreate(name="Rex"), REX]),
    ("create_pets", "UserNotFoundError"): lambda s, x: create_pets(s, [PetCreate(name="Rex", owner_id=NOBODY)]),
    ("create_user", "AlreadyExistsError"): lambda s, x: create_user(s, ADA),
    ("create_user", "SimilarExistsError"): lambda s, x: create_user(s, ADA, on_similar="error"),
    ("create_users", "AlreadyExistsError"): lambda s, x: create_users(s, [ADA]),
    ("delete_pet", "ConflictError"): lambda s, x: delete_pet(s, x.tom),
    ("delete_pet", "PetNotFoundError"): lambda s, x: delete_pet(s, -1),
    ("delete_user", "ConflictError"): lambda s, x: delete_user(s, x.carl),
    ("delete_user", "UserHasPetsError"): lambda s, x: delete_user(s, x.ada),
    ("delete_user", "UserNotFoundError"): lambda s, x: delete_user(s, NOBODY),
    ("get_pet", "PetNotFoundError"): lambda s, x: get_pet(s, NOBODY),
    ("get_user", "UserNotFoundError"): lambda s, x: get_user(s, NOBODY),
    ("import_pets", "ImportRejectedError"): lambda s, x: import_pets(s, io.StringIO("name,weight_g\nRex,heavy\n")),
    ("import_pets", "OSError"): lambda s, x: import_pets(s, Path("missing.csv")),
    ("export_pets", "OSError"): lambda s, x: export_pets(s, Path("missing") / "pets.csv"),
    ("list_pets", "InvalidCursorError"): lambda s, x: list_pets(s, after="x"),
    ("list_users", "InvalidCursorError"): lambda s, x: list_users(s, after="x"),
    ("merge_pets", "ConflictError"): lambda s, x: merge_pets(s, x.rex, x.tom),
    ("merge_pets", "PetNotFoundError"): lambda s, x: merge_pets(s, x.rex, NOBODY),
    ("merge_users", "ConflictError"): lambda s, x: merge_users(s, x.bob, x.carl),
    ("merge_users", "UserNotFoundError"): lambda s, x: merge_users(s, x.ada, NOBODY),
    ("restore_pet", "PetNotFoundError"): lambda s, x: restore_pet(s, NOBODY),
    ("restore_user", "UserNotFoundError"): lambda s, x: restore_user(s, NOBODY),
    ("transfer_pet", "PetDeceasedError"): lambda s, x: transfer_pet(s, x.max, x.bob),
    ("transfer_pet", "PetNotFoundError"): lambda s, x: transfer_pet(s, NOBODY, x.bob),
    ("transfer_pet", "UserNotFoundError"): lambda s, x: transfer_pet(s, x.rex, NOBODY),
    ("update_pet", "AlreadyExistsError"): lambda s, x: update_pet(s, x.max, PetUpdate(microchip=CHIP)),
    ("update_pet", "InvalidValueError"): lambda s, x: update_pet(s, x.max, PetUpdate(status="active")),
    ("update_pet", "PetNotFoundError"): lambda s, x: update_pet(s, NOBODY, PetUpdate(name="Max")),
    ("update_pet", "StaleVersionError"): lambda s, x: update_pet(s, x.rex, PetUpdate(name="Max"), expected_version=7),
    ("update_user", "AlreadyExistsError"): lambda s, x: update_user(s, x.bob, UserUpdate(email="ada@example.com")),
    ("update_user", "StaleVersionError"): lambda s, x: update_user(s, x.ada, UserUpdate(), expected_version=7),
    ("update_user", "UserNotFoundError"): lambda s, x: update_user(s, NOBODY, UserUpdate(name="Bob")),
    ("upsert_pet", "AlreadyExistsError"): lambda s, x: upsert_pet(s, with_values(KEYED_PET, microchip=CHIP)),
    ("upsert_pet", "InvalidValueError"): lambda s, x: upsert_pet(s, KEYED_DEAD_PET, by="microchip"),
    ("upsert_pet", "PetDeceasedError"): lambda s, x: upsert_pet(s, with_values(KEYED_DEAD_PET, owner_id=x.bob)),
    ("upsert_pet", "UserNotFoundError"): lambda s, x: upsert_pet(s, with_values(KEYED_PET, owner_id=NOBODY)),
    ("upsert_pets", "AlreadyExistsError"): lambda s, x: upsert_pets(s, [with_values(KEYED_PET, microchip=CHIP)]),
    ("upsert_pets", "InvalidValueError"): lambda s, x: upsert_pets(s, [KEYED_DEAD_PET], by="microchip"),
    ("upsert_pets", "PetDeceasedError"): lambda s, x: upsert_pets(s, [with_values(KEYED_DEAD_PET, owner_id=x.bob)]),
    ("upsert_pets", "UserNotFoundError"): lambda s, x: upsert_pets(s, [with_values(KEYED_PET, owner_id=NOBODY)]),
    ("upsert_user", "AlreadyExistsError"): lambda s, x: upsert_user(s, with_values(KEYED_USER, email=ADA.email)),
    ("upsert_users", "AlreadyExistsError"): lambda s, x: upsert_users(s, [with_values(KEYED_USER, email=ADA.email)]),
}
# In a database without tables.
DATABASE_ERRORS: dict[str, Call] = {
    "anonymise_user": lambda s, x: anonymise_user(s, 1),
    "archive_pet": lambda s, x: archive_pet(s, 1),
    "archive_user": lambda s, x: archive_user(s, 1),
    "count_pets": lambda s, x: count_pets(s),
    "count_users": lambda s, x: count_users(s),
    "create_pet": lambda s, x: create_pet(s, REX),
    "create_pets": lambda s, x: create_pets(s, [REX]),
    "create_user": lambda s, x: create_user(s, ADA),
    "create_users": lambda s, x: create_users(s, [ADA]),
    "delete_pet": lambda s, x: delete_pet(s, 1),
    "delete_user": lambda s, x: delete_user(s, 1),
    "export_pets": lambda s, x: export_pets(s, io.StringIO()),
    "find_duplicate_pets": lambda s, x: drained(find_duplicate_pets(s)),
    "find_duplicate_users": lambda s, x: drained(find_duplicate_users(s)),
    "find_pet_by_microchip": lambda s, x: find_pet_by_microchip(s, CHIP),
    "find_user_by_email": lambda s, x: find_user_by_email(s, "ada@example.com"),
    "get_pet": lambda s, x: get_pet(s, 1),
    "get_user": lambda s, x: get_user(s, 1),
    "import_pets": lambda s, x: import_pets(s, io.StringIO("name\nRex\n")),
    "list_pets": lambda s, x: list_pets(s),
    "list_users": lambda s, x: list_users(s),
    "merge_pets": lambda s, x: merge_pets(s, 1, 2),
    "merge_users": lambda s, x: merge_users(s, 1, 2),
    "pet_statistics": lambda s, x: pet_statistics(s),
    "restore_pet": lambda s, x: restore_pet(s, 1),
    "restore_user": lambda s, x: restore_user(s, 1),
    "stream_pets": lambda s, x: drained(stream_pets(s)),
    "stream_users": lambda s, x: drained(stream_users(s)),
    "transfer_pet": lambda s, x: transfer_pet(s, 1, 2),
    "update_pet": lambda s, x: update_pet(s, 1, PetUpdate(name="Rex")),
    "update_user": lambda s, x: update_user(s, 1, UserUpdate(name="Ada")),
    "upsert_pet": lambda s, x: upsert_pet(s, KEYED_PET),
    "upsert_pets": lambda s, x: upsert_pets(s, [KEYED_PET]),
    "upsert_user": lambda s, x: upsert_user(s, KEYED_USER),
    "upsert_users": lambda s, x: upsert_users(s, [KEYED_USER]),
}
PROMISES: dict[tuple[str, str], Call] = {
    **{(name, "TypeError"): call for name, call in TYPE_ERRORS.items()},
    **{(name, "ValidationError"): call for name, call in VALIDATION_ERRORS.items()},
    **{(name, "ValueError"): call for name, call in VALUE_ERRORS.items()},
    **OTHERS,
}
# What takes a full disk, another transaction or a missing library.
ELSEWHERE = {
    ("get_pet", "StorageError"): "test_row_locks.py",
    ("get_pet", "TransactionConflictError"): "test_row_locks.py",
    ("get_user", "StorageError"): "test_row_locks.py",
    ("get_user", "TransactionConflictError"): "test_row_locks.py",
    ("import_pets", "AlreadyExistsError"): "test_import_conflicts.py",
    ("import_pets", "ModuleNotFoundError"): "test_importing.py",
    ("import_pets", "StorageError"): "test_sources.py",
    ("import_pets", "TransactionConflictError"): "test_import_conflicts.py",
    ("merge_users", "TransactionConflictError"): "test_concurrent_merges.py",
    **dict.fromkeys(
        (
            (name, error)
            for name in ("upsert_pet", "upsert_pets", "upsert_user", "upsert_users")
            for error in ("StorageError", "TransactionConflictError")
        ),
        "test_upserts.py",
    ),
}
BUILT_IN = {"TypeError": TypeError, "ValueError": ValueError, "OSError": OSError, "ValidationError": ValidationError}


@pytest.fixture
async def stored(session: AsyncSession) -> AsyncIterator[Stored]:
    users = [await create_user(session, UserCreate(name=name)) for name in ("Bob", "Carl")]
    ada = await create_user(session, ADA)
    rex = await create_pet(session, PetCreate(name="Rex", microchip=CHIP, owner_id=ada.id))
    dead = await create_pet(
        session,
        PetCreate(name="Max", microchip=DEAD_CHIP, external_ref="MAX", status="deceased", deceased_on=date(2024, 1, 1)),
    )
    tom = await create_pet(session, PetCreate(name="Tom"))
    table = (
        "CREATE TABLE visit (id INTEGER PRIMARY KEY, user_id INTEGER, pet_id INTEGER,"
        f" FOREIGN KEY (user_id) REFERENCES {quoted_user(session)} (id), FOREIGN KEY (pet_id) REFERENCES pet (id))"
    )
    await session.exec(text(table))  # type: ignore[call-overload]
    visit = f"INSERT INTO visit (id, user_id, pet_id) VALUES (1, {users[1].id}, {tom.id})"
    await session.exec(text(visit))  # type: ignore[call-overload]
    await session.commit()
    yield Stored(ada.id, users[0].id, users[1].id, rex.id, dead.id, tom.id)
    await session.rollback()
    await session.exec(text("DROP TABLE visit"))  # type: ignore[call-overload]
    await session.commit()


@pytest.mark.parametrize(("service", "error"), PROMISES, ids=[" ".join(promise) for promise in PROMISES])
async def test_a_service_raises_what_it_promises(
    session: AsyncSession, stored: Stored, service: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kind: type[Exception] = BUILT_IN.get(error) or getattr(package, error)

    with pytest.raises(kind) as caught:
        await PROMISES[service, error](session, stored)

    assert error == "OSError" or type(caught.value) is kind


@pytest.mark.parametrize("service", DATABASE_ERRORS)
async def test_a_service_raises_a_database_error_where_there_are_no_tables(empty_url: URL, service: str) -> None:
    async with Database(empty_url) as db, db.session() as session:
        with pytest.raises(DatabaseError):
            await DATABASE_ERRORS[service](session, Stored(1, 2, 3, 4, 5, 6))


def test_each_promise_of_a_docstring_has_a_row_here() -> None:
    services = {
        name
        for name in package.__all__
        if getattr(getattr(package, name), "__module__", "").startswith(f"{package.__name__}.services.")
        and inspect.isfunction(getattr(package, name))
    }
    documented = {(name, error) for name in services for error in promised(getattr(package, name))}

    assert services == set(DATABASE_ERRORS)
    assert documented == PROMISES.keys() | ELSEWHERE.keys() | {(name, "DatabaseError") for name in DATABASE_ERRORS}


def promised(function: object) -> list[str]:
    section = re.search(r"Raises:\n(.*?)(?:\n\n|\Z)", inspect.getdoc(function) or "", flags=re.DOTALL)
    return re.findall(r"^    ([A-Za-z]+): ", section[1] if section else "", flags=re.MULTILINE)
