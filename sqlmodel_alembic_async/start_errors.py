"""Tell in one line why the `alembic` command or IPython cannot use the database, and what to do."""

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from .driver_errors import IN_USE, LACKS_RIGHT, cause_of, translate
from .errors import DatabaseError, DatabaseUnavailableError, PetManagementError, StorageError, TransactionConflictError

# What a wrong setting or a database that cannot be reached may raise before the first statement.
CONNECT_ERRORS = (PetManagementError, SQLAlchemyError, OSError, ValueError, TypeError, ImportError)

_DRIVERS = "use sqlite://, postgresql://, mariadb:// or mysql://, which choose their driver"
_NOT_THE_CALLERS = (DatabaseUnavailableError, StorageError, TransactionConflictError)


def why_not_connected(error: Exception) -> str:
    """Return the reason for an error of CONNECT_ERRORS that was raised before the first statement."""
    if (reason := why_not_migrated(error)) is not None:
        is_unreachable = isinstance(_known(error), DatabaseUnavailableError)
        return f"{reason}: check DATABASE_URL, and that the server runs" if is_unreachable else reason
    if isinstance(error, ValidationError):  # Of the settings, whose names are those of the environment variables.
        return "; ".join(f"{str(found['loc'][0]).upper()}: {found['msg']}" for found in error.errors())
    reason = str(next(iter(error.args), "")).partition("\n")[0]
    if isinstance(error, ImportError) and "pip install" in reason:
        return reason
    advice = f"; {_DRIVERS}" if isinstance(error, ImportError | SQLAlchemyError) else ""
    return f"DATABASE_URL: {reason}{advice}"


def why_not_migrated(error: Exception) -> str | None:
    """Return the reason for an error of a migration; None for a mistake in a revision, which needs its traceback."""
    known = _known(error)
    if known is error:
        return str(known)
    if isinstance(known, _NOT_THE_CALLERS):
        return f"{known} ({cause_of(error)})"
    if isinstance(known, DatabaseError) and str(known) in (LACKS_RIGHT, IN_USE):
        return str(known)
    return None


def _known(error: Exception) -> PetManagementError | None:
    return error if isinstance(error, PetManagementError) else translate(error)
