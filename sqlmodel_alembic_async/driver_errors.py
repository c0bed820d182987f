"""What drivers and SQLAlchemy report, told in the errors of this package: the only place that knows their codes."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from .errors import (
    AlreadyExistsError,
    ConflictError,
    DatabaseError,
    DatabaseUnavailableError,
    InvalidValueError,
    OutcomeUnknownError,
    PetManagementError,
    StaleVersionError,
    StorageError,
    TransactionConflictError,
    UserHasPetsError,
    UserNotFoundError,
)

_Codes = set[str | int]

# Kinds of fault. The codes of each: SQLite's error names, PostgreSQL's sqlstates, MariaDB's and MySQL's errnos.
_UNIQUE: _Codes = {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID", "23505", 1062}
_FOREIGN_KEY: _Codes = {"SQLITE_CONSTRAINT_FOREIGNKEY", "SQLITE_CONSTRAINT_TRIGGER", "23503", "23001", 1451, 1452}
_NOT_NULL: _Codes = {"SQLITE_CONSTRAINT_NOTNULL", "23502", 1048, 1364}
_CHECK: _Codes = {"SQLITE_CONSTRAINT_CHECK", "23514", 4025, 3819}
_DOES_NOT_FIT: _Codes = (
    {"SQLITE_MISMATCH", "SQLITE_TOOBIG"}
    | {"22000", "22001", "22003", "22007", "22008", "22021", "22P02", "22P05"}
    | {1264, 1292, 1366, 1406}
)
_CONFLICT: _Codes = (
    {"SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_BUSY_RECOVERY", "SQLITE_BUSY_TIMEOUT"}
    | {"SQLITE_LOCKED", "SQLITE_LOCKED_SHAREDCACHE"}
    | {"40001", "40P01"}
    | {1020, 1213, 3572}
)
_LOCK_TIMEOUT: _Codes = {"55P03", 1205}
_UNAVAILABLE: _Codes = (
    {"3D000", "53300", "57P01", "57P02", "57P03", "57P05"}
    | {1040, 1044, 1045, 1049, 1053, 1203, 1698, 1927}
    | {2002, 2003, 2006, 2013, 2055, 4031}
)
_TABLE_MISSING: _Codes = {"42P01", 1146}
_NO_RIGHT: _Codes = {"42501", 1142}
_IN_USE: _Codes = {"2BP01"}

# What the storage says is worth telling apart.
_STORAGE: dict[str | int | None, str] = {
    "SQLITE_FULL": "the storage is full",
    "SQLITE_READONLY": "the database is read-only",
    "SQLITE_CORRUPT": "the database is corrupt",
    "SQLITE_NOTADB": "the file is not a database",
    "SQLITE_CANTOPEN": "the database can not be opened: is the folder there, and may this process write to it?",
    "SQLITE_PERM": "the database may not be accessed by this process",
    "SQLITE_IOERR": "reading or writing the storage failed",
    "53100": "the storage is full",
    "25006": "the transaction or the database is read-only",
    "58030": "reading or writing the storage failed",
    "XX001": "the database is corrupt",
    "XX002": "the database is corrupt",
    1021: "the storage is full",
    1114: "the storage is full",
    1290: "the database is read-only",
    1792: "the transaction is read-only",
    1836: "the database is read-only",
}

_LOST_WITH_CONNECTION = "8s2b"  # SQLAlchemy's own code.

_NAME_IN_TEXT = (
    re.compile(r"constraint failed: (?P<name>[\w., ]+)$"),  # SQLite
    re.compile(r"\bfor key '(?:[^']*\.)?(?P<name>[^'.]+)'$"),  # MariaDB, MySQL: unique
    re.compile(r"^CONSTRAINT `(?:[^`]*`\.`)?(?P<name>[^`]+)` failed for"),  # MariaDB: check
    re.compile(r"^Check constraint '(?P<name>[^']+)' is violated"),  # MySQL: check
    re.compile(r"\bCONSTRAINT `(?P<name>[^`]+)` FOREIGN KEY"),  # MariaDB, MySQL: foreign key
    re.compile(r"\b(?:[Cc]olumn|Field) '(?P<name>\w+)'"),  # MariaDB, MySQL: not null, too long
)
_OWN_UNIQUE = re.compile(r"(?:uq_(?:user|pet)_|(?:user|pet)\.)(?P<field>\w+)")
_OWN_PRIMARY_KEY = re.compile(r"pk_(?:user|pet)|PRIMARY")
_SCHEMA = r"""(?:(?:\w+|"(?:[^"]|"")+"|`(?:[^`]|``)+`)\.)?"""
_ON_OWN_TABLE = re.compile(
    rf"""\s*(?P<verb>INSERT INTO|UPDATE|DELETE FROM) {_SCHEMA}["`]?(?P<table>user|pet)\b(?!["`]?\.)"""
)


class DriverError(Exception):
    """The cause shown for a translated error: what the driver raised, less its text, which may quote a row."""


@contextmanager
def translated(*others: type[Exception]) -> Iterator[None]:
    """Raise this package's error for what SQLAlchemy raises inside, and for `others`: drivers connect with OSError."""
    kinds: tuple[type[Exception], ...] = (SQLAlchemyError, *others)
    try:
        yield
    except kinds as error:
        reason = _reason(error)
        if (known := translate(reason)) is not None:
            raise known from cause_of(error)
        if reason is not error:
            raise reason from None
        raise


@contextmanager
def committing() -> Iterator[None]:
    """Like translated(), around a COMMIT: a connection lost here leaves the outcome unknown."""
    try:
        with translated(OSError):
            yield
    except DatabaseUnavailableError as error:
        if isinstance(error.__context__, PendingRollbackError):
            raise  # Lost before: there was nothing to commit any more.
        raise OutcomeUnknownError(
            "the connection was lost while committing: look whether the transaction is in before repeating it"
        ) from error.__cause__


def _reason(error: BaseException) -> BaseException:
    # Some drivers notice a mistake in the program, such as a read that is not awaited, only within a statement.
    inner = error.orig if isinstance(error, StatementError) else None
    return inner if isinstance(inner, SQLAlchemyError | RuntimeError) else error


def translate(error: BaseException) -> PetManagementError | None:
    """Return this package's error for another one, or None for what is a mistake in the caller's program."""
    if isinstance(error, StaleDataError):
        return StaleVersionError(None)
    if isinstance(error, PoolTimeoutError):
        return DatabaseUnavailableError("all connections of the pool are in use: sessions are not being closed in time")
    if isinstance(error, PendingRollbackError) and error.code == _LOST_WITH_CONNECTION:
        return DatabaseUnavailableError("the connection to the database was lost in this transaction")
    if isinstance(error, PendingRollbackError):
        return DatabaseError(
            "an earlier error ended this transaction: roll back first; to go on after an error that you mean to"
            " handle, put the call that may fail into `async with session.begin_nested():`"
        )
    if isinstance(error, DBAPIError):
        return _translate_driver_error(error)
    if isinstance(error, StatementError):
        return InvalidValueError()  # A column type refuses it, such as a naive datetime.
    if isinstance(error, OSError):
        return _translate_code(error, _code(error), "")
    return None


def _translate_driver_error(error: DBAPIError) -> PetManagementError:
    driver = error.driver_exception
    known = _translate_code(driver, _code(driver), error.statement or "")
    if error.connection_invalidated and not isinstance(known, DatabaseUnavailableError):
        return DatabaseUnavailableError("the connection to the database was lost")
    return known


def _translate_code(driver: BaseException, code: str | int | None, statement: str) -> PetManagementError:
    if code in _UNIQUE:
        return AlreadyExistsError(_unique_field(_name(driver)))
    if code in _FOREIGN_KEY:
        return _foreign_key_error(_name(driver), statement)
    if code in _CHECK:
        return InvalidValueError(constraint=_name(driver))
    if code in _NOT_NULL or code in _DOES_NOT_FIT:
        column = getattr(driver, "column_name", None) or _name(driver) or ""
        return InvalidValueError(field=column.rpartition(".")[2] or None)
    if code in _CONFLICT:
        return TransactionConflictError("another transaction was in the way: try again")
    if code in _LOCK_TIMEOUT:
        return TransactionConflictError(
            "another transaction, perhaps one that is idle, holds a lock on the table or the row: end it, and try again"
        )
    if text := _STORAGE.get(code) or _STORAGE.get(_primary(code)):
        return StorageError(text)
    if code in _UNAVAILABLE or str(code)[:2] in ("08", "28") or isinstance(driver, OSError):
        return DatabaseUnavailableError("the database can not be reached, or refused the connection")
    if code in _TABLE_MISSING or "no such table" in str(driver):
        return DatabaseError("a table is missing: migrate first, with `alembic upgrade head`")
    if code in _NO_RIGHT:
        return DatabaseError("the user of the database URL lacks a right on the tables or the schema: grant it")
    if code in _IN_USE:
        return DatabaseError("another object, such as a view, depends on the table: drop that object first")
    return DatabaseError("the database refused the statement")


def _code(driver: BaseException) -> str | int | None:
    """Return SQLite's error name, PostgreSQL's sqlstate, or MariaDB's and MySQL's errno."""
    if isinstance(driver, OSError):
        return None
    if driver.args and isinstance(driver.args[0], int):
        return driver.args[0]
    return getattr(driver, "sqlite_errorname", None) or getattr(driver, "sqlstate", None)


def _primary(code: str | int | None) -> str:
    # SQLITE_READONLY_DBMOVED and its like are refinements of SQLITE_READONLY.
    return "_".join(str(code).split("_")[:2])


def cause_of(error: BaseException) -> DriverError:
    """Return what may be told of a driver's error: its class and its code."""
    driver = getattr(error, "driver_exception", None) or error
    code = _code(driver)
    return DriverError(f"{type(driver).__module__}.{type(driver).__qualname__}" + ("" if code is None else f" {code}"))


def _name(driver: BaseException) -> str | None:
    """Return the name of the constraint or column that the database reports."""
    if name := getattr(driver, "constraint_name", None):
        return str(name)
    text = str(driver.args[-1]) if driver.args else ""
    return next((found["name"] for pattern in _NAME_IN_TEXT if (found := pattern.search(text))), None)


def _unique_field(name: str | None) -> str:
    if name is None or _OWN_PRIMARY_KEY.fullmatch(name):
        return "id"
    own = _OWN_UNIQUE.fullmatch(name)
    return own["field"] if own else name


def _foreign_key_error(name: str | None, statement: str) -> PetManagementError:
    # SQLite names no key: on our own tables it is most likely the owner's.
    if name in (None, "fk_pet_owner_id_user") and (own := _ON_OWN_TABLE.match(statement)):
        if own["verb"] != "DELETE FROM":
            return UserNotFoundError(None)
        if own["table"] == "user":
            return UserHasPetsError(None)
    return ConflictError("a row of another table refers to this one, or is missing")
