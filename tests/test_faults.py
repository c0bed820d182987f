"""What drivers report, told in the errors of this package."""

import pickle
import traceback

import pytest
from pydantic import ValidationError
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InvalidRequestError, OperationalError

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    ConflictError,
    Database,
    DatabaseError,
    DatabaseUnavailableError,
    InvalidValueError,
    OutcomeUnknownError,
    PetCreate,
    PetDeceasedError,
    PetManagementError,
    PetNotFoundError,
    PetUpdate,
    SimilarExistsError,
    StaleVersionError,
    StorageError,
    TransactionConflictError,
    UserCreate,
    UserHasPetsError,
    UserNotFoundError,
    create_pets,
    create_user,
    delete_pet,
    find_user_by_email,
    get_pet,
    list_pets,
    update_pet,
)
from sqlmodel_alembic_async.faults import committing, translate, translated


class Driver(Exception):  # noqa: N818  # it plays the part of any driver's
    """A driver's error: asyncpg's have a sqlstate, asyncmy's an errno, SQLite's a name."""

    def __init__(self, *args: object, **attributes: object) -> None:
        super().__init__(*args)
        vars(self).update(attributes)


def wrapped(driver: Exception, statement: str = "SELECT 1", *, lost: bool = False) -> DBAPIError:
    return OperationalError(statement, {}, driver, connection_invalidated=lost)


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        *((Driver(errno, "x"), TransactionConflictError) for errno in (1213, 1205, 1020)),
        *((Driver("x", sqlstate=state), TransactionConflictError) for state in ("40001", "40P01", "55P03")),
        *(
            (Driver("x", sqlite_errorname=name), TransactionConflictError)
            for name in ("SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_LOCKED")
        ),
        *((Driver(errno, "x"), DatabaseUnavailableError) for errno in (1040, 1045, 1049, 2003, 2006, 2013)),
        *(
            (Driver("x", sqlstate=state), DatabaseUnavailableError)
            for state in ("08006", "28P01", "3D000", "57P01", "53300")
        ),
        *((Driver(errno, "x"), StorageError) for errno in (1021, 1290)),
        *((Driver("x", sqlstate=state), StorageError) for state in ("53100", "25006")),
        *(
            (Driver("x", sqlite_errorname=f"SQLITE_{name}"), StorageError)
            for name in ("FULL", "READONLY", "READONLY_DBMOVED", "CORRUPT", "NOTADB", "CANTOPEN", "IOERR_WRITE", "PERM")
        ),
        *((Driver(errno, "x"), InvalidValueError) for errno in (1406, 1264, 1048, 4025, 3819)),
        *((Driver("x", sqlstate=state), InvalidValueError) for state in ("22001", "23502", "23514")),
        (Driver(1146, "x"), DatabaseError),
        (Driver("x", sqlstate="42601"), DatabaseError),
        (Driver(), DatabaseError),
        (Driver("no such table: pet"), DatabaseError),
    ],
)
def test_each_code_has_its_error(driver: Exception, expected: type[Exception]) -> None:
    assert type(translate(wrapped(driver))) is expected


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "secret"), TimeoutError(), OSError("secret")])
def test_a_network_that_fails_is_unavailable(error: OSError) -> None:
    assert type(translate(error)) is DatabaseUnavailableError


def test_a_lost_connection_is_unavailable_whatever_its_code() -> None:
    assert type(translate(wrapped(Driver("connection is closed"), lost=True))) is DatabaseUnavailableError
    assert type(translate(wrapped(Driver(2013, "lost"), lost=True))) is DatabaseUnavailableError


def test_a_connection_lost_while_committing_leaves_the_outcome_unknown() -> None:
    with pytest.raises(OutcomeUnknownError), committing():
        raise wrapped(Driver("closed"), lost=True)
    with pytest.raises(TransactionConflictError), committing():
        raise wrapped(Driver("x", sqlstate="40001"))


@pytest.mark.parametrize(
    "error", [KeyError("x"), ValidationError.from_exception_data("x", []), InvalidRequestError("x")]
)
def test_a_mistake_in_the_callers_program_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, translated(OSError):
        raise error

    assert caught.value is error


@pytest.mark.parametrize(
    ("driver", "field"),
    [
        (Driver(1062, "Duplicate entry 'for key 'uq_user_name'' for key 'uq_user_email'"), "email"),
        (Driver(1062, "Duplicate entry '1' for key 'user.PRIMARY'"), "id"),
        (Driver(1062, "Duplicate entry 'x' for key 'uq_clinic'"), "uq_clinic"),
        (Driver("x", sqlstate="23505", constraint_name="uq_pet_external_ref"), "external_ref"),
        (Driver("x", sqlstate="23505", constraint_name="pk_pet"), "id"),
        (Driver("UNIQUE constraint failed: pet.microchip", sqlite_errorname="SQLITE_CONSTRAINT_UNIQUE"), "microchip"),
        (Driver("UNIQUE constraint failed: pet.id", sqlite_errorname="SQLITE_CONSTRAINT_PRIMARYKEY"), "id"),
        (Driver(1062, "kein Eintrag"), "id"),
        (Driver("UNIQUE constraint failed: a.x, a.y", sqlite_errorname="SQLITE_CONSTRAINT_UNIQUE"), "a.x, a.y"),
    ],
)
def test_a_unique_value_that_is_taken_names_its_field(driver: Exception, field: str) -> None:
    error = translate(wrapped(driver))

    assert isinstance(error, AlreadyExistsError)
    assert error.field == field


@pytest.mark.parametrize(
    ("driver", "field", "constraint"),
    [
        (Driver(4025, "CONSTRAINT `ck_pet_weight_g` failed for `db`.`pet`"), None, "ck_pet_weight_g"),
        (Driver(3819, "Check constraint 'ck_pet_sex' is violated."), None, "ck_pet_sex"),
        (Driver("CHECK constraint failed: ck_x", sqlite_errorname="SQLITE_CONSTRAINT_CHECK"), None, "ck_x"),
        (Driver("x", sqlstate="23514", constraint_name="ck_y"), None, "ck_y"),
        (Driver(1406, "Data too long for column 'name' at row 1"), "name", None),
        (Driver("NOT NULL constraint failed: pet.name", sqlite_errorname="SQLITE_CONSTRAINT_NOTNULL"), "name", None),
        (Driver("x", sqlstate="23502", column_name="name"), "name", None),
        (Driver("x", sqlstate="22001"), None, None),
    ],
)
def test_a_refused_value_names_its_field_or_rule(driver: Exception, field: str | None, constraint: str | None) -> None:
    error = translate(wrapped(driver))

    assert isinstance(error, InvalidValueError)
    assert (error.field, error.constraint) == (field, constraint)


@pytest.mark.parametrize(
    ("statement", "key", "expected"),
    [
        ('INSERT INTO "user" (x)', "fk_user_clinic", ConflictError),
        ("INSERT INTO pet (x)", "fk_pet_owner_id_user", UserNotFoundError),
        ("UPDATE pet SET x", "fk_pet_owner_id_user", UserNotFoundError),
        ('DELETE FROM "user" WHERE', "fk_pet_owner_id_user", UserHasPetsError),
        ("DELETE FROM `user` WHERE", None, UserHasPetsError),
        ("DELETE FROM pet WHERE", None, ConflictError),
        ("DELETE FROM pets WHERE", "fk_pet_owner_id_user", ConflictError),
    ],
)
def test_a_foreign_key_tells_who_is_missing(statement: str, key: str | None, expected: type[Exception]) -> None:
    driver = Driver("x", sqlstate="23503", constraint_name=key)

    assert type(translate(wrapped(driver, statement))) is expected


ERRORS: list[PetManagementError] = [
    UserNotFoundError(7),
    PetNotFoundError(None),
    AlreadyExistsError("email"),
    SimilarExistsError([7, 8], []),
    SimilarExistsError(range(1, 100)),
    UserHasPetsError(7),
    UserHasPetsError(None),
    StaleVersionError(3),
    StaleVersionError(None),
    PetDeceasedError(7),
    InvalidValueError(field="name"),
    InvalidValueError(constraint="ck_pet_sex"),
    InvalidValueError(),
    StorageError("full"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_an_error_survives_pickling_and_reads_as_a_sentence(error: PetManagementError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), vars(copy), str(copy)) == (type(error), vars(error), str(error))
    assert str(error)
    assert "None" not in str(error)


async def test_no_traceback_holds_a_value(db: Database) -> None:
    async with db.transaction() as session:
        await create_user(session, UserCreate(name="Ada", email="secret@example.com", external_ref="secret-1"))

    for data in ({"email": "secret@example.com"}, {"external_ref": "secret-1"}):
        with pytest.raises(AlreadyExistsError) as caught:
            async with db.transaction() as session:
                await create_user(session, UserCreate(name="secret", **data))
        shown = "".join(traceback.format_exception(caught.value))
        assert "secret@" not in shown
        assert "secret-1" not in shown
        assert "DriverError" in shown


async def test_nothing_raw_leaves_a_service(empty_url: URL) -> None:
    async with Database(empty_url) as db, db.session() as session:
        for work in (
            create_user(session, UserCreate(name="Ada")),
            create_pets(session, [PetCreate(name="Rex")]),
            get_pet(session, 1),
            list_pets(session),
            update_pet(session, 1, PetUpdate(name="Rex")),
            delete_pet(session, 1),
        ):
            with pytest.raises(DatabaseError, match="alembic upgrade head"):
                await work
            await session.rollback()


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_a_killed_connection_is_unavailable_and_the_next_one_works(db: Database, engine_name: str) -> None:
    me, kill = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
        "mariadb": ("SELECT connection_id()", "KILL {}"),
    }[engine_name]

    async def murder(session: AsyncSession) -> None:
        victim = (await (await session.connection()).exec_driver_sql(me)).scalar()
        async with db.engine.connect() as murderer:
            await murderer.exec_driver_sql(kill.format(victim))

    with pytest.raises(DatabaseUnavailableError):
        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Lost", email="lost@example.com"))
            await murder(session)
            await find_user_by_email(session, "lost@example.com")
    with pytest.raises(OutcomeUnknownError):
        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Lost", email="lost@example.com"))
            await murder(session)
    async with db.transaction() as session:
        assert await find_user_by_email(session, "lost@example.com") is None
