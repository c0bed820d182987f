"""The errors of this package.

PetManagementError
├── NotFoundError (LookupError)      .key
│   ├── UserNotFoundError
│   └── PetNotFoundError
├── ConflictError
│   ├── AlreadyExistsError           .field
│   ├── SimilarExistsError           .candidates
│   ├── UserHasPetsError             .user_id
│   ├── StaleVersionError            .expected
│   └── PetDeceasedError             .pet_id
├── InvalidValueError (ValueError)   .field or .constraint
├── InvalidCursorError (ValueError)
├── ImportRejectedError (ValueError) .report
└── DatabaseError
    ├── TransactionConflictError
    ├── DatabaseUnavailableError
    ├── OutcomeUnknownError
    └── StorageError

Bad input to a shape is pydantic's own ValidationError. No message here holds a value from a row.
"""

from collections.abc import Sequence
from typing import Any

from .import_report import ImportReport


class PetManagementError(Exception):
    """The root of every error this package raises by itself."""


class NotFoundError(PetManagementError, LookupError):
    """No row has this key; `key` is None where the database did not say which one."""

    _entity = "row"

    def __init__(self, key: int | None) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"no such {self._entity}" if self.key is None else f"no {self._entity} with id {self.key}"


class UserNotFoundError(NotFoundError):
    """No user has this id."""

    _entity = "user"


class PetNotFoundError(NotFoundError):
    """No pet has this id."""

    _entity = "pet"


class ConflictError(PetManagementError):
    """The request is valid, but the rows that are there forbid it."""


class AlreadyExistsError(ConflictError):
    """Another row holds the same unique value; `field` names the column."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field

    def __str__(self) -> str:
        return f"another row already has this {self.field}"


class SimilarExistsError(ConflictError):
    """Rows that are there look like the new one; `candidates` holds them, the most similar first."""

    _SHOWN = 10

    def __init__(self, ids: Sequence[int], candidates: Sequence[Any] = ()) -> None:
        super().__init__(ids)
        self.ids = list(ids)
        self.candidates = list(candidates)

    def __str__(self) -> str:
        ids = ", ".join(map(str, self.ids[: self._SHOWN])) + (", …" if len(self.ids) > self._SHOWN else "")
        return f'similar rows exist (id {ids}): look at them, or create another one with on_similar="allow"'


class UserHasPetsError(ConflictError):
    """A user who has pets is not deleted unless the pets are released."""

    def __init__(self, user_id: int | None) -> None:
        super().__init__(user_id)
        self.user_id = user_id

    def __str__(self) -> str:
        who = "the user" if self.user_id is None else f"user {self.user_id}"
        return f'{who} still has pets: transfer them, or delete with pets="release"'


class StaleVersionError(ConflictError):
    """The row changed since it was read; `expected` is None where the stale copy was the session's own."""

    def __init__(self, expected: int | None) -> None:
        super().__init__(expected)
        self.expected = expected

    def __str__(self) -> str:
        version = "" if self.expected is None else f" at version {self.expected}"
        return f"the row is no longer{version} as it was read: read it again"


class PetDeceasedError(ConflictError):
    """A deceased pet is not transferred."""

    def __init__(self, pet_id: int) -> None:
        super().__init__(pet_id)
        self.pet_id = pet_id

    def __str__(self) -> str:
        return f"pet {self.pet_id} is deceased and can not be transferred"


class InvalidValueError(PetManagementError, ValueError):
    """The database itself refused a value: by the length or kind of `field`, or by its CHECK `constraint`."""

    def __init__(self, field: str | None = None, constraint: str | None = None) -> None:
        super().__init__(field, constraint)
        self.field = field
        self.constraint = constraint

    def __str__(self) -> str:
        if self.constraint is not None:
            return f"the values break the rule {self.constraint}"
        return "a value does not fit its column" if self.field is None else f"the value does not fit {self.field}"


class InvalidCursorError(PetManagementError, ValueError):
    """The cursor is malformed, or belongs to another list or another order."""


class ImportRejectedError(PetManagementError, ValueError):
    """A file, or some of its rows, can not be imported, and nothing of it was; `report` says why."""

    def __init__(self, report: ImportReport) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        first = self.report.rejections[0]
        where = f"line {first.line}" if first.column is None else f"line {first.line}, {first.column}"
        many = (
            f"{self.report.rejected} of {self.report.rows} rows are rejected, the first one in "
            if self.report.rows
            else ""
        )
        return f"nothing was imported: {many}{where}: {first.reason}"


class DatabaseError(PetManagementError):
    """The database failed, not the request."""


class TransactionConflictError(DatabaseError):
    """Another transaction was in the way (deadlock, serialisation, lock time-out, busy): try again."""


class DatabaseUnavailableError(DatabaseError):
    """The database can not be reached, the connection was lost, or the pool is exhausted."""


class OutcomeUnknownError(DatabaseError):
    """The connection was lost while committing: the transaction is either wholly in, or not at all."""


class StorageError(DatabaseError):
    """The storage is full, read-only, corrupt, unreadable, or not a database."""
