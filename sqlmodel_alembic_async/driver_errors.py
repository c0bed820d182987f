"""Translate the errors of drivers and of SQLAlchemy into those of this package."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from . import error_codes
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
    except Exception as error:
        if not isinstance(error, kinds) and not (OSError in others and _is_asyncpgs(error)):
            raise
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
        return _translate_code(error, error_codes.code_of(error), "")
    if _is_asyncpgs(error):
        code = error_codes.code_of(error)
        return _translate_code(error, code, "") if code else DatabaseUnavailableError("the connection was lost")
    return None


def _is_asyncpgs(error: BaseException) -> bool:
    """Return whether this is asyncpg's own error: SQLAlchemy wraps none while it prepares a new connection."""
    return type(error).__module__.partition(".")[0] == "asyncpg"


def _translate_driver_error(error: DBAPIError) -> PetManagementError:
    driver = error.driver_exception
    known = _translate_code(driver, error_codes.code_of(driver), error.statement or "")
    if error.connection_invalidated and not isinstance(known, DatabaseUnavailableError):
        return DatabaseUnavailableError("the connection to the database was lost")
    return known


def _translate_code(driver: BaseException, code: str | int | None, statement: str) -> PetManagementError:
    if code in error_codes.UNIQUE:
        return AlreadyExistsError(_unique_field(_name(driver)))
    if code in error_codes.FOREIGN_KEY:
        return _foreign_key_error(_name(driver), statement)
    if code in error_codes.CHECK:
        return InvalidValueError(constraint=_name(driver))
    if code in error_codes.NOT_NULL or code in error_codes.DOES_NOT_FIT:
        column = getattr(driver, "column_name", None) or _name(driver) or ""
        return InvalidValueError(field=column.rpartition(".")[2] or None)
    if code in error_codes.SNAPSHOT:
        return TransactionConflictError(
            "another transaction has written since this one began to read: roll back first, and repeat this transaction"
        )
    if code in error_codes.CONFLICT:
        return TransactionConflictError(
            "another transaction conflicted with this one: roll back, and repeat this transaction"
        )
    if code in error_codes.LOCK_TIMEOUT:
        return TransactionConflictError(
            "another transaction, which may be idle, holds a lock on the database, the table or the row: end that"
            " transaction, and repeat this one"
        )
    if text := error_codes.STORAGE.get(code) or error_codes.STORAGE.get(error_codes.primary_code(code)):
        return StorageError(text)
    if code in error_codes.UNAVAILABLE or str(code)[:2] in ("08", "28") or isinstance(driver, OSError):
        return DatabaseUnavailableError("the database cannot be reached, or it refused the connection")
    if code in error_codes.TABLE_MISSING or "no such table" in str(driver):
        return DatabaseError("a table is missing: migrate first, with `alembic upgrade head`")
    if code in error_codes.NO_RIGHT:
        return DatabaseError(LACKS_RIGHT)
    if code in error_codes.IN_USE:
        return DatabaseError(IN_USE)
    return DatabaseError("the database refused the statement: __cause__ has the class and code of the driver's error")


def cause_of(error: BaseException) -> DriverError:
    """Return the class and code of a driver's error as a DriverError, without the error's text."""
    driver = getattr(error, "driver_exception", None) or error
    code = error_codes.code_of(driver)
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
