"""Translate the errors of drivers and of SQLAlchemy into those of this package.

Only this module knows the error codes of the databases.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from .engines.pools import WriterTimeoutError
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

_UNIQUE: _Codes = {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID", "23505", 1062}
_FOREIGN_KEY: _Codes = {"SQLITE_CONSTRAINT_FOREIGNKEY", "SQLITE_CONSTRAINT_TRIGGER", "23503", "23001", 1451, 1452}
_NOT_NULL: _Codes = {"SQLITE_CONSTRAINT_NOTNULL", "23502", 1048, 1364}
_CHECK: _Codes = {"SQLITE_CONSTRAINT_CHECK", "23514", 4025, 3819}
_DOES_NOT_FIT: _Codes = (
    {"SQLITE_MISMATCH", "SQLITE_TOOBIG"}
    | {"22000", "22001", "22003", "22007", "22008", "22021", "22P02", "22P05"}
    | {1264, 1292, 1366, 1406}
)
_SNAPSHOT: _Codes = {"SQLITE_BUSY_SNAPSHOT"}
_CONFLICT: _Codes = (
    {"SQLITE_BUSY_RECOVERY", "SQLITE_LOCKED", "SQLITE_LOCKED_SHAREDCACHE"} | {"40001", "40P01"} | {1020, 1213, 3572}
)
_LOCK_TIMEOUT: _Codes = {"SQLITE_BUSY", "SQLITE_BUSY_TIMEOUT", "55P03", 1205}
_UNAVAILABLE: _Codes = (
    {"3D000", "53300", "57P01", "57P02", "57P03", "57P05"}
    | {1040, 1044, 1045, 1049, 1053, 1203, 1698, 1927}
    | {2002, 2003, 2006, 2013, 2055, 4031}
)
_TABLE_MISSING: _Codes = {"42P01", 1146}
_NO_RIGHT: _Codes = {"42501", 1142}
_IN_USE: _Codes = {"2BP01"}

_STORAGE: dict[str | int | None, str] = {
    "SQLITE_FULL": "the storage is full",
    "SQLITE_READONLY": "the database is read-only",
    "SQLITE_CORRUPT": "the database is corrupt",
    "SQLITE_NOTADB": "the file is not a database",
    "SQLITE_CANTOPEN": "the database cannot be opened: check that the folder exists and is writable",
    "SQLITE_PERM": "this process has no permission to access the database",
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

LACKS_RIGHT = "the user of the database URL lacks a right on the table or the schema: grant it"
IN_USE = "another object, such as a view, depends on the table: drop that object first"

_CONNECTION_LOST = "8s2b"  # SQLAlchemy's code: the connection of the transaction was invalidated.

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
    r"\s*(?:WITH \w+ AS\s*\()?(?P<verb>INSERT INTO|UPDATE|DELETE FROM) "
    rf"""{_SCHEMA}["`]?(?P<table>user|pet)\b(?!["`]?\.)"""
)


class DriverError(Exception):
    """The `__cause__` of a translated error: the class and code of the driver's error.

    It leaves out the text of the driver's error, which may quote the values of a row.
    """


@contextmanager
def translated(*others: type[Exception]) -> Iterator[None]:
    """Translate SQLAlchemy's errors, and those of the classes `others`, into this package's errors.

    Pass OSError around code that may open a connection: the drivers raise it.
    """
    kinds: tuple[type[Exception], ...] = (SQLAlchemyError, *others)
    try:
        yield
    except kinds as error:
        original = _original_error(error)
        if (known := translate(original)) is not None:
            raise known from cause_of(error)
        if original is not error:
            raise original from None
        raise


@contextmanager
def committing() -> Iterator[None]:
    """Translate errors of a COMMIT: raise OutcomeUnknownError if the connection is lost during it."""
    try:
        with translated(OSError):
            yield
    except DatabaseUnavailableError as error:
        if isinstance(error.__context__, PendingRollbackError):
            raise  # The connection was lost before the COMMIT, so nothing was committed.
        raise OutcomeUnknownError(
            "the connection was lost during COMMIT: check whether the transaction was committed before you repeat it"
        ) from error.__cause__


def _original_error(error: BaseException) -> BaseException:
    """Unwrap a programming error, such as a read without await, that SQLAlchemy wrapped in a StatementError."""
    inner = error.orig if isinstance(error, StatementError) else None
    return inner if isinstance(inner, SQLAlchemyError | RuntimeError) else error


def translate(error: BaseException) -> PetManagementError | None:
    """Return this package's error for another error, or None for a programming error of the caller."""
    if isinstance(error, StaleDataError):
        return StaleVersionError(None)
    if isinstance(error, WriterTimeoutError):
        return DatabaseUnavailableError(
            "other transactions of this process are still writing: make transactions shorter, or increase lock_timeout"
        )
    if isinstance(error, PoolTimeoutError):
        return DatabaseUnavailableError(
            "all connections of the pool are in use: close sessions sooner, or increase pool_size"
        )
    if isinstance(error, PendingRollbackError) and error.code == _CONNECTION_LOST:
        return DatabaseUnavailableError("the connection to the database was lost in this transaction")
    if isinstance(error, PendingRollbackError):
        return DatabaseError(
            "an earlier error ended this transaction: roll back first; to handle an error and continue, put the"
            " call that may fail into `async with session.begin_nested():`"
        )
    if isinstance(error, DBAPIError):
        return _translate_driver_error(error)
    if isinstance(error, StatementError):
        if isinstance(error.orig, OSError):
            return translate(error.orig)
        return InvalidValueError()  # A column type refused the value, such as a naive datetime.
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
    if code in _SNAPSHOT:
        return TransactionConflictError(
            "another transaction has written since this one began to read: roll back first, and repeat this transaction"
        )
    if code in _CONFLICT:
        return TransactionConflictError(
            "another transaction conflicted with this one: roll back, and repeat this transaction"
        )
    if code in _LOCK_TIMEOUT:
        return TransactionConflictError(
            "another transaction, which may be idle, holds a lock on the database, the table or the row: end that"
            " transaction, and repeat this one"
        )
    if text := _STORAGE.get(code) or _STORAGE.get(_primary_code(code)):
        return StorageError(text)
    if code in _UNAVAILABLE or str(code)[:2] in ("08", "28") or isinstance(driver, OSError):
        return DatabaseUnavailableError("the database cannot be reached, or it refused the connection")
    if code in _TABLE_MISSING or "no such table" in str(driver):
        return DatabaseError("a table is missing: migrate first, with `alembic upgrade head`")
    if code in _NO_RIGHT:
        return DatabaseError(LACKS_RIGHT)
    if code in _IN_USE:
        return DatabaseError(IN_USE)
    return DatabaseError("the database refused the statement: __cause__ has the class and code of the driver's error")


def _code(driver: BaseException) -> str | int | None:
    """Return SQLite's error name, PostgreSQL's SQLSTATE, or the error number of MariaDB and MySQL."""
    if isinstance(driver, OSError):
        return None
    if driver.args and isinstance(driver.args[0], int):
        return driver.args[0]
    return getattr(driver, "sqlite_errorname", None) or getattr(driver, "sqlstate", None)


def _primary_code(code: str | int | None) -> str:
    """Return the primary code of an extended SQLite code: SQLITE_READONLY for SQLITE_READONLY_DBMOVED."""
    return "_".join(str(code).split("_")[:2])


def cause_of(error: BaseException) -> DriverError:
    """Return the class and code of a driver's error as a DriverError, without the error's text."""
    driver = getattr(error, "driver_exception", None) or error
    code = _code(driver)
    return DriverError(f"{type(driver).__module__}.{type(driver).__qualname__}" + ("" if code is None else f" {code}"))


def _name(driver: BaseException) -> str | None:
    """Return the name of the constraint or column that the driver's error names."""
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
    # SQLite does not name the foreign key. On this package's tables, it is most likely that of a pet's owner.
    if name in (None, "fk_pet_owner_id_user") and (own := _ON_OWN_TABLE.match(statement)):
        if own["verb"] != "DELETE FROM":
            return UserNotFoundError(None)
        if own["table"] == "user":
            return UserHasPetsError(None)
    return ConflictError(
        "foreign key violation: another table's row refers to this row, or a row that this row refers to is missing"
    )
