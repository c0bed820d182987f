"""Owners and their pets in async SQLModel sessions, migrated by Alembic."""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING

from . import migrations
from .databases import AsyncSession, Database, database, get_session
from .errors import (
    AlreadyExistsError,
    ConflictError,
    DatabaseError,
    DatabaseUnavailableError,
    InvalidCursorError,
    InvalidValueError,
    NotFoundError,
    OutcomeUnknownError,
    PetDeceasedError,
    PetManagementError,
    PetNotFoundError,
    SimilarExistsError,
    StaleVersionError,
    StorageError,
    TransactionConflictError,
    UserHasPetsError,
    UserNotFoundError,
)
from .ipython import load_ipython_extension
from .models import Pet, PetCreate, PetUpdate, User, UserCreate, UserUpdate
from .services.duplicates import DuplicateGroup, find_duplicate_pets, find_duplicate_users
from .services.pages import OrderBy, Page
from .services.pets import (
    PetFilters,
    archive_pet,
    count_pets,
    create_pet,
    create_pets,
    delete_pet,
    find_pet_by_microchip,
    get_pet,
    list_pets,
    restore_pet,
    stream_pets,
    transfer_pet,
    update_pet,
)
from .services.similarity import DuplicateReason
from .services.users import (
    UserFilters,
    archive_user,
    count_users,
    create_user,
    create_users,
    delete_user,
    find_user_by_email,
    get_user,
    list_users,
    restore_user,
    stream_users,
    update_user,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    engine: AsyncEngine

__version__ = _version("sqlmodel_alembic_async")

__all__ = [
    "AlreadyExistsError",
    "AsyncSession",
    "ConflictError",
    "Database",
    "DatabaseError",
    "DatabaseUnavailableError",
    "DuplicateGroup",
    "DuplicateReason",
    "InvalidCursorError",
    "InvalidValueError",
    "NotFoundError",
    "OrderBy",
    "OutcomeUnknownError",
    "Page",
    "Pet",
    "PetCreate",
    "PetDeceasedError",
    "PetFilters",
    "PetManagementError",
    "PetNotFoundError",
    "PetUpdate",
    "SimilarExistsError",
    "StaleVersionError",
    "StorageError",
    "TransactionConflictError",
    "User",
    "UserCreate",
    "UserFilters",
    "UserHasPetsError",
    "UserNotFoundError",
    "UserUpdate",
    "__version__",
    "archive_pet",
    "archive_user",
    "count_pets",
    "count_users",
    "create_pet",
    "create_pets",
    "create_user",
    "create_users",
    "database",
    "delete_pet",
    "delete_user",
    "engine",
    "find_duplicate_pets",
    "find_duplicate_users",
    "find_pet_by_microchip",
    "find_user_by_email",
    "get_pet",
    "get_session",
    "get_user",
    "list_pets",
    "list_users",
    "load_ipython_extension",
    "migrations",
    "restore_pet",
    "restore_user",
    "stream_pets",
    "stream_users",
    "transfer_pet",
    "update_pet",
    "update_user",
]


def __getattr__(name: str) -> "AsyncEngine":
    # Built when it is first asked for: importing must not need a database's driver.
    if name == "engine":
        return database.engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
