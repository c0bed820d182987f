"""What drivers report, told in the errors of this package."""

import traceback
from contextlib import suppress

import asyncpg
import pytest
from pydantic import ValidationError
from sqlalchemy import bindparam, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    DBAPIError,
    InvalidRequestError,
    MissingGreenlet,
    OperationalError,
    PendingRollbackError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import select

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    ConflictError,
    Database,
    DatabaseError,
    DatabaseUnavailableError,
    InvalidValueError,
    OutcomeUnknownError,
    Pet,
    PetCreate,
    PetManagementError,
    PetUpdate,
    StaleVersionError,
    StorageError,
    TransactionConflictError,
    UserCreate,
    UserHasPetsError,
    UserNotFoundError,
    create_pet,
    create_pets,
    create_user,
    delete_pet,
    find_user_by_email,
    get_pet,
    list_pets,
    update_pet,
)
from sqlmodel_alembic_async.driver_errors import DriverError, committing, translate, translated


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
        ("INSERT INTO tenant.pet (x)", None, UserNotFoundError),
        ('UPDATE "a ""b"".c".pet SET x', None, UserNotFoundError),
        ("DELETE FROM `a ``b``.c`.`user` WHERE", None, UserHasPetsError),
        ("INSERT INTO pet.clinic (x)", None, ConflictError),
        ("DELETE FROM pet WHERE", None, ConflictError),
        ("DELETE FROM pets WHERE", "fk_pet_owner_id_user", ConflictError),
    ],
)
def test_a_foreign_key_tells_who_is_missing(statement: str, key: str | None, expected: type[Exception]) -> None:
    driver = Driver("x", sqlstate="23503", constraint_name=key)

    assert type(translate(wrapped(driver, statement))) is expected


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


@pytest.mark.parametrize("block", ["transaction", "reading", "snapshot", "run_transaction"])
async def test_a_read_that_is_not_awaited_keeps_its_name(db: Database, block: str) -> None:
    async with db.transaction() as session:
        pet_id = (await create_pet(session, PetCreate(name="Rex"))).id

    async def read_expired(session: AsyncSession) -> None:
        pet = await get_pet(session, pet_id)
        session.expire(pet)
        _ = pet.name

    with pytest.raises(MissingGreenlet, match=r"read it again with `await session\.refresh") as caught:
        if block == "run_transaction":
            await db.run_transaction(read_expired)
        else:
            async with db.reading(snapshot=True) if block == "snapshot" else getattr(db, block)() as session:
                await read_expired(session)

    assert caught.value.__cause__ is None
    async with db.reading() as session:
        assert (await get_pet(session, pet_id)).name == "Rex"


async def test_a_parameter_without_a_value_is_a_mistake_in_the_program(db: Database) -> None:
    for statement in (text("SELECT :x"), select(Pet).where(Pet.name == bindparam("x"))):
        with pytest.raises(InvalidRequestError, match="A value is required for bind parameter 'x'"):
            async with db.transaction() as session:
                await session.exec(statement)


def test_what_a_column_type_refuses_is_an_invalid_value_and_a_wrong_loop_is_not() -> None:
    with pytest.raises(InvalidValueError), translated():
        raise StatementError("x", "SELECT 1", {}, ValueError("x"))
    with pytest.raises(RuntimeError, match="loop"), translated():
        raise StatementError("x", "SELECT 1", {}, RuntimeError("another loop"))
    with pytest.raises(DatabaseError, match="roll back first"), translated():
        raise StatementError("x", "SELECT 1", {}, PendingRollbackError("x"))


async def kill_connection_of(session: AsyncSession, db: Database, engine_name: str) -> None:
    me, kill = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
        "mariadb": ("SELECT connection_id()", "KILL {}"),
    }[engine_name]
    victim = (await (await session.connection()).exec_driver_sql(me)).scalar()
    async with db.engine.connect() as other:
        await other.exec_driver_sql(kill.format(victim))


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_a_killed_connection_is_unavailable_and_the_next_one_works(db: Database, engine_name: str) -> None:
    with pytest.raises(DatabaseUnavailableError):
        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Lost", email="lost@example.com"))
            await kill_connection_of(session, db, engine_name)
            await find_user_by_email(session, "lost@example.com")
    with pytest.raises(OutcomeUnknownError):
        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Lost", email="lost@example.com"))
            await kill_connection_of(session, db, engine_name)
    async with db.transaction() as session:
        assert await find_user_by_email(session, "lost@example.com") is None


async def test_a_commit_after_a_connection_was_lost_is_no_unknown_outcome(db: Database) -> None:
    with pytest.raises(DatabaseUnavailableError, match="lost in this transaction"):
        async with db.transaction() as session:
            await create_pet(session, PetCreate(name="Lost"))
            await (await session.connection()).invalidate()

    async with db.session() as session:
        await create_pet(session, PetCreate(name="Lost"))
        await (await session.connection()).invalidate()
        with pytest.raises(DatabaseUnavailableError), committing():
            await session.commit()
    async with db.reading() as session:
        assert (await list_pets(session)).items == []


# Every code that is told apart, and its error.
CODES: dict[type[PetManagementError], tuple[str | int, ...]] = {
    AlreadyExistsError: (
        *("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID"),
        *("23505", 1062),
    ),
    ConflictError: ("SQLITE_CONSTRAINT_FOREIGNKEY", "SQLITE_CONSTRAINT_TRIGGER", "23503", "23001", 1451, 1452),
    InvalidValueError: (
        *("SQLITE_CONSTRAINT_NOTNULL", "23502", 1048, 1364),
        *("SQLITE_CONSTRAINT_CHECK", "23514", 4025, 3819),
        *("SQLITE_MISMATCH", "SQLITE_TOOBIG"),
        *("22000", "22001", "22003", "22007", "22008", "22021", "22P02", "22P05"),
        *(1264, 1292, 1366, 1406),
    ),
    TransactionConflictError: (
        *("SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_BUSY_RECOVERY", "SQLITE_BUSY_TIMEOUT"),
        *("SQLITE_LOCKED", "SQLITE_LOCKED_SHAREDCACHE"),
        *("40001", "40P01", "55P03"),
        *(1020, 1205, 1213, 3572),
    ),
    DatabaseUnavailableError: (
        *("08000", "08001", "08003", "08004", "08006", "08P01", "28000", "28P01"),
        *("3D000", "53300", "57P01", "57P02", "57P03", "57P05"),
        *(1040, 1044, 1045, 1049, 1053, 1203, 1698, 1927),
        *(2002, 2003, 2006, 2013, 2055, 4031),
    ),
    # What no transaction, network or value is to blame for, and what only looks like a code of another kind.
    DatabaseError: ("42601", "40003", "54000", "57014", "XX000", "22", "SQLITE_ERROR", 1064, 1317, 2000, 40001, 23505),
}


def of_code(code: str | int) -> DBAPIError:
    """Return what a driver raises for this code."""
    if isinstance(code, int):
        return wrapped(Driver(code, "x"))
    return wrapped(Driver("x", **{"sqlite_errorname" if code.startswith("SQLITE_") else "sqlstate": code}))


@pytest.mark.parametrize(("code", "expected"), [(code, error) for error, codes in CODES.items() for code in codes])
def test_every_code_has_its_error(code: str | int, expected: type[PetManagementError]) -> None:
    assert type(translate(of_code(code))) is expected


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("SQLITE_FULL", "the storage is full"),
        ("SQLITE_READONLY", "the database is read-only"),
        ("SQLITE_CORRUPT", "the database is corrupt"),
        ("SQLITE_NOTADB", "the file is not a database"),
        (
            "SQLITE_CANTOPEN",
            "the database cannot be opened: check that the folder exists and is writable",
        ),
        ("SQLITE_PERM", "this process has no permission to access the database"),
        ("SQLITE_IOERR", "reading or writing the storage failed"),
        ("53100", "the storage is full"),
        ("25006", "the transaction or the database is read-only"),
        ("58030", "reading or writing the storage failed"),
        ("XX001", "the database is corrupt"),
        ("XX002", "the database is corrupt"),
        (1021, "the storage is full"),
        (1114, "the storage is full"),
        (1290, "the database is read-only"),
        (1792, "the transaction is read-only"),
        (1836, "the database is read-only"),
    ],
)
def test_every_fault_of_the_storage_says_what_it_is(code: str | int, text: str) -> None:
    error = translate(of_code(code))

    assert type(error) is StorageError
    assert str(error) == text


@pytest.mark.parametrize("code", ["42P01", 1146])
def test_a_table_that_is_missing_says_to_migrate(code: str | int) -> None:
    assert str(translate(of_code(code))) == "a table is missing: migrate first, with `alembic upgrade head`"


def test_a_foreign_key_that_fails_at_the_commit_is_a_conflict() -> None:
    driver = Driver("FOREIGN KEY constraint failed", sqlite_errorname="SQLITE_CONSTRAINT_FOREIGNKEY")

    assert type(translate(OperationalError(None, None, driver))) is ConflictError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (wrapped(Driver(1213, "secret")), "tests.test_driver_errors.Driver 1213"),
        (wrapped(Driver("secret", sqlstate="40001")), "tests.test_driver_errors.Driver 40001"),
        (wrapped(Driver("secret", sqlite_errorname="SQLITE_BUSY")), "tests.test_driver_errors.Driver SQLITE_BUSY"),
        (wrapped(Driver("secret")), "tests.test_driver_errors.Driver"),
        (ConnectionRefusedError(111, "secret"), "builtins.ConnectionRefusedError"),
        (PendingRollbackError("secret"), "sqlalchemy.exc.PendingRollbackError"),
    ],
)
def test_the_cause_tells_the_drivers_class_and_code_and_nothing_else(error: Exception, told: str) -> None:
    with pytest.raises(PetManagementError) as caught, translated(OSError):
        raise error

    assert str(caught.value.__cause__) == told


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (StaleDataError("secret"), StaleVersionError, "changed since this session read it"),
        (PoolTimeoutError("secret"), DatabaseUnavailableError, "all connections of the pool are in use"),
        (PendingRollbackError("secret", code="8s2b"), DatabaseUnavailableError, "was lost in this transaction"),
        (PendingRollbackError("secret"), DatabaseError, "begin_nested"),
        (PendingRollbackError("secret", code="7s2a"), DatabaseError, "begin_nested"),
        (StatementError("secret", "SELECT 1", {}, ValueError("secret")), InvalidValueError, "does not fit"),
        (StatementError("secret", "SELECT 1", {}, OSError("secret")), DatabaseUnavailableError, "cannot be reached"),
        (wrapped(Driver("secret"), lost=True), DatabaseUnavailableError, "^the connection to the database was lost$"),
        (wrapped(Driver(1045, "secret"), lost=True), DatabaseUnavailableError, "refused the connection"),
    ],
)
def test_what_sqlalchemy_reports_itself_has_its_error(
    error: Exception, expected: type[Exception], message: str
) -> None:
    with pytest.raises(expected, match=message) as caught, translated():
        raise error

    assert type(caught.value) is expected
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_a_connection_lost_before_the_commit_leaves_no_doubt() -> None:
    with pytest.raises(DatabaseUnavailableError) as caught, committing():
        raise PendingRollbackError("x", code="8s2b")

    assert type(caught.value) is DatabaseUnavailableError


@pytest.mark.parametrize("engine_name", ["postgresql", "mariadb"], indirect=True)
async def test_a_commit_after_an_earlier_loss_says_that_nothing_is_in(db: Database, engine_name: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match="was lost in this transaction") as caught:
        async with db.transaction() as session:
            await create_user(session, UserCreate(name="Lost", email="lost@example.com"))
            with suppress(DatabaseUnavailableError):
                async with session.begin_nested():
                    await kill_connection_of(session, db, engine_name)
                    await find_user_by_email(session, "lost@example.com")

    assert type(caught.value) is DatabaseUnavailableError
    async with db.reading() as session:
        assert await find_user_by_email(session, "lost@example.com") is None


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_a_reader_that_cannot_write_any_more_is_told_to_roll_back_first(db: Database) -> None:
    async with db.session() as session:
        assert await find_user_by_email(session, "ada@example.com") is None
        async with db.transaction() as other:
            await create_user(other, UserCreate(name="Ada", email="ada@example.com"))

        with pytest.raises(TransactionConflictError, match="has written since this one began to read: roll back first"):
            await create_pet(session, PetCreate(name="Rex"))

        await session.rollback()
        await create_pet(session, PetCreate(name="Rex"))
        await session.commit()


def test_an_error_of_asyncpg_itself_is_translated_where_a_connection_may_be_opened() -> None:
    for error in (asyncpg.InterfaceError("connection is closed"), asyncpg.AdminShutdownError("shut down")):
        with pytest.raises(DatabaseUnavailableError) as lost, translated(OSError):
            raise error
        assert isinstance(lost.value.__cause__, DriverError)
        with pytest.raises(type(error)), translated():  # The application's own use of asyncpg.
            raise error
