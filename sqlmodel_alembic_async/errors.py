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

Invalid input to a shape raises pydantic's ValidationError. No message contains a value of a row.
"""

from collections.abc import Sequence
from typing import Any

from .import_report import ImportReport


class PetManagementError(Exception):
    """The base of every error of this package."""


class NotFoundError(PetManagementError, LookupError):
    """No row has this id; `key` is the id, or None if the database does not report it."""

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
    """The request is valid, but contradicts what is stored."""


class AlreadyExistsError(ConflictError):
    """Another row has the same unique value; `field` names the column."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field

    def __str__(self) -> str:
        return f"another row already has this {self.field}"


class SimilarExistsError(ConflictError):
    """Stored rows are similar to the new one; `candidates` holds them, the most similar first."""

    _SHOWN = 10

    def __init__(self, ids: Sequence[int], candidates: Sequence[Any] = ()) -> None:
        super().__init__(ids)
        self.ids = list(ids)
        self.candidates = list(candidates)

    def __str__(self) -> str:
        ids = ", ".join(map(str, self.ids[: self._SHOWN])) + (", …" if len(self.ids) > self._SHOWN else "")
        return f'similar rows exist (id {ids}): use one of them, or pass on_similar="allow"'


class UserHasPetsError(ConflictError):
    """The user still has pets and is not deleted; `user_id` is None if the database does not report it."""

    def __init__(self, user_id: int | None) -> None:
        super().__init__(user_id)
        self.user_id = user_id

    def __str__(self) -> str:
        who = "the user" if self.user_id is None else f"user {self.user_id}"
        return f'{who} still has pets: transfer them, or delete with pets="release"'


class StaleVersionError(ConflictError):
    """The row changed after it was read; `expected` is the caller's `expected_version`, None if there was none."""

    def __init__(self, expected: int | None) -> None:
        super().__init__(expected)
        self.expected = expected

    def __str__(self) -> str:
        version = "this session read it" if self.expected is None else f"version {self.expected}"
        return f"the row changed since {version}: reload it"


class PetDeceasedError(ConflictError):
    """The pet is deceased and cannot be transferred."""

    def __init__(self, pet_id: int) -> None:
        super().__init__(pet_id)
        self.pet_id = pet_id

    def __str__(self) -> str:
        return f"pet {self.pet_id} is deceased and cannot be transferred"


class InvalidValueError(PetManagementError, ValueError):
    """The database refused a value: it does not fit the column `field`, or violates the CHECK `constraint`."""

    def __init__(self, field: str | None = None, constraint: str | None = None) -> None:
        super().__init__(field, constraint)
        self.field = field
        self.constraint = constraint

    def __str__(self) -> str:
        if self.constraint is not None:
            return f"the values violate the constraint {self.constraint}"
        return "a value does not fit its column" if self.field is None else f"the value does not fit {self.field}"


class InvalidCursorError(PetManagementError, ValueError):
    """The cursor is malformed, or belongs to another list or order."""


class ImportRejectedError(PetManagementError, ValueError):
    """The file, or some of its rows, cannot be imported, and nothing was written; `report` says why."""

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
    """The database failed, or the transaction cannot continue; the request itself may be valid."""


class TransactionConflictError(DatabaseError):
    """The transaction conflicted with another one (deadlock, serialization failure, lock timeout, busy): try again."""


class DatabaseUnavailableError(DatabaseError):
    """The database cannot be reached, the connection was lost, or no connection of the pool became free in time."""


class OutcomeUnknownError(DatabaseError):
    """The connection was lost during COMMIT: the transaction is stored as a whole, or not at all."""


class StorageError(DatabaseError):
    """The storage is full, read-only, corrupt, unreadable, or not a database."""
