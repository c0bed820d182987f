"""Owners and their pets in async SQLModel sessions, migrated by Alembic."""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

from . import migrations
from .databases import AsyncSession, Database, database, get_session
from .errors import (
    AlreadyExistsError,
    ConflictError,
    DatabaseError,
    DatabaseUnavailableError,
    ImportRejectedError,
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
from .import_report import ImportReport, Rejection
from .models import Pet, PetCreate, PetUpdate, User, UserCreate, UserUpdate
from .services.lists import count_pets, count_users, list_pets, list_users, stream_pets, stream_users
from .services.pets import (
    archive_pet,
    create_pet,
    create_pets,
    delete_pet,
    find_pet_by_microchip,
    get_pet,
    restore_pet,
    transfer_pet,
    update_pet,
)
from .services.statements.filters import PetFilters, UserFilters
from .services.statements.pages import OrderBy, Page
from .services.users import (
    archive_user,
    create_user,
    create_users,
    delete_user,
    find_user_by_email,
    get_user,
    restore_user,
    update_user,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from .ipython import load_ipython_extension, unload_ipython_extension
    from .microchips import MicrochipDescription, describe_microchip
    from .public_shapes import PetPublic, UserPublic, UserPublicWithPets
    from .services.csv_files.exporting import export_pets
    from .services.csv_files.importing import import_pets
    from .services.duplicates.matching import DuplicateReason
    from .services.duplicates.search import DuplicateGroup, find_duplicate_pets, find_duplicate_users
    from .services.erasure import anonymise_user
    from .services.merges import MergeReport, merge_pets, merge_users
    from .services.statistics import PetStatistics, pet_statistics
    from .services.upserts import UpsertReport, upsert_pet, upsert_pets, upsert_user, upsert_users

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
    "ImportRejectedError",
    "ImportReport",
    "InvalidCursorError",
    "InvalidValueError",
    "MergeReport",
    "MicrochipDescription",
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
    "PetPublic",
    "PetStatistics",
    "PetUpdate",
    "Rejection",
    "SimilarExistsError",
    "StaleVersionError",
    "StorageError",
    "TransactionConflictError",
    "UpsertReport",
    "User",
    "UserCreate",
    "UserFilters",
    "UserHasPetsError",
    "UserNotFoundError",
    "UserPublic",
    "UserPublicWithPets",
    "UserUpdate",
    "__version__",
    "anonymise_user",
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
    "describe_microchip",
    "engine",
    "export_pets",
    "find_duplicate_pets",
    "find_duplicate_users",
    "find_pet_by_microchip",
    "find_user_by_email",
    "get_pet",
    "get_session",
    "get_user",
    "import_pets",
    "list_pets",
    "list_users",
    "load_ipython_extension",
    "merge_pets",
    "merge_users",
    "migrations",
    "pet_statistics",
    "restore_pet",
    "restore_user",
    "stream_pets",
    "stream_users",
    "transfer_pet",
    "unload_ipython_extension",
    "update_pet",
    "update_user",
    "upsert_pet",
    "upsert_pets",
    "upsert_user",
    "upsert_users",
]


_LATER = {
    "load_ipython_extension": ".ipython",
    "unload_ipython_extension": ".ipython",
    "MicrochipDescription": ".microchips",
    "describe_microchip": ".microchips",
    "PetPublic": ".public_shapes",
    "UserPublic": ".public_shapes",
    "UserPublicWithPets": ".public_shapes",
    "DuplicateGroup": ".services.duplicates.search",
    "find_duplicate_pets": ".services.duplicates.search",
    "find_duplicate_users": ".services.duplicates.search",
    "anonymise_user": ".services.erasure",
    "export_pets": ".services.csv_files.exporting",
    "import_pets": ".services.csv_files.importing",
    "MergeReport": ".services.merges",
    "merge_pets": ".services.merges",
    "merge_users": ".services.merges",
    "DuplicateReason": ".services.duplicates.matching",
    "PetStatistics": ".services.statistics",
    "pet_statistics": ".services.statistics",
    "UpsertReport": ".services.upserts",
    "upsert_pet": ".services.upserts",
    "upsert_pets": ".services.upserts",
    "upsert_user": ".services.upserts",
    "upsert_users": ".services.upserts",
}


def __getattr__(name: str) -> object:
    # Importing the package must not need a database driver.
    if name == "engine":
        return database.engine
    if name in _LATER:
        return getattr(_import_module(_LATER[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
