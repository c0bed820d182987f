"""The rows that every contender writes and reads, and the raw SQL that seeds them."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from sqlmodel_alembic_async import Pet, User

_NAMES = "Bella Buddy Charlie Coco Daisy Finn Ginger Jack Kiki Luna Max Milo Molly Nala Oscar Rex Rocky Ruby Simba Zoe"
NAMES = _NAMES.split()
PREFIX = "rex"  # One pet in twenty: a search finds as many among 1,000 as among 1,000,000.
OWNERS = 100
PAGE = 100
FOUND = 20
SEEDED = datetime(2024, 1, 1, tzinfo=UTC)

USER_COLUMNS = ["id", *(name for name in User.model_fields if name != "id")]
PET_COLUMNS = ["id", *(name for name in Pet.model_fields if name != "id")]


def pet_values(number: int) -> dict[str, Any]:
    """Return what a caller says of a new pet."""
    return {
        "name": f"{NAMES[number % len(NAMES)]} {number}",
        "owner_id": number % OWNERS + 1,
        "species": "dog",
        "breed": "Mixed Breed",
        "color": "brown",
        "sex": "female",
        "neutered": True,
        "birth_date": date(2020, 5, 17),
        "weight_g": 12_500,
    }


def user_values(number: int) -> dict[str, Any]:
    """Return what a caller says of a new user."""
    return {
        "name": f"{NAMES[number % len(NAMES)]} {number}",
        "email": f"owner{number}@example.com",
        "phone": "+49 30 1234567",
        "address": "Invalidenstr. 116",
        "city": "Berlin",
        "postal_code": "10115",
    }


def full_pet(values: dict[str, Any]) -> dict[str, Any]:
    """Return every column but the id, as one fills them who has no library for it."""
    return {
        **dict.fromkeys(PET_COLUMNS[1:]),
        **values,
        **_bookkeeping(values),
        "birth_date_estimated": False,
        "status": "active",
    }


def full_user(values: dict[str, Any]) -> dict[str, Any]:
    """Return every column but the id, as one fills them who has no library for it."""
    return {**dict.fromkeys(USER_COLUMNS[1:]), **values, **_bookkeeping(values)}


def _bookkeeping(values: dict[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"created_at": now, "updated_at": now, "version": 1, "name_key": values["name"].casefold()}


def pets(first: int, number: int) -> Iterator[dict[str, Any]]:
    return (pet_values(n) for n in range(first, first + number))


def users(first: int, number: int) -> Iterator[dict[str, Any]]:
    return (user_values(n) for n in range(first, first + number))


async def seed(url: URL, first: int, last: int) -> None:
    """Insert the pets from first to last, whose numbers are their ids, and with the very first one their owners."""
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        kind = connection.dialect.name
        user = connection.dialect.identifier_preparer.quote("user")
        if first == 1:
            await connection.execute(text(f"INSERT INTO {user} {_users(kind)}"))
        await connection.execute(text(f"INSERT INTO pet {_pets(kind, first, last)}"))
        await _settle(connection, user, last)
    await engine.dispose()


async def _settle(connection: AsyncConnection, user: str, last: int) -> None:
    # What a server does by itself after a while.
    if connection.dialect.name == "sqlite":
        await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    elif connection.dialect.name == "postgresql":
        for table in (f"{user}", "pet"):
            sequence = f"pg_get_serial_sequence('{table}', 'id')"
            await connection.execute(text(f"SELECT setval({sequence}, {last} + 10000000)"))
            await connection.execute(text(f"VACUUM ANALYZE {table}"))
    else:
        await connection.execute(text(f"ANALYZE TABLE {user}, pet"))


def _numbers(kind: str, first: int, last: int) -> str:
    if kind == "sqlite":
        numbers = f"SELECT {first} AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}"
        return f"(WITH RECURSIVE numbers AS ({numbers}) SELECT n FROM numbers) AS numbers"
    if kind == "postgresql":
        return f"generate_series({first}, {last}) AS numbers (n)"
    return f"(SELECT seq AS n FROM seq_{first}_to_{last}) AS numbers"


def _name() -> str:
    cases = " ".join(f"WHEN {index} THEN '{name} '" for index, name in enumerate(NAMES))
    return f"CASE n % {len(NAMES)} {cases} END"


def _select(kind: str, columns: dict[str, str], first: int, last: int) -> str:
    name = f"concat({_name()}, n)" if kind != "sqlite" else f"{_name()} || n"
    moment = SEEDED.strftime("'%Y-%m-%d %H:%M:%S.%f'")
    columns = {
        "id": "n",
        "name": name,
        **columns,
        "created_at": moment,
        "updated_at": moment,
        "version": "1",
        "name_key": f"lower({name})",
    }
    return f"({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM {_numbers(kind, first, last)}"


def _users(kind: str) -> str:
    return _select(kind, {"city": "'Berlin'"}, 1, OWNERS)


def _pets(kind: str, first: int, last: int) -> str:
    columns = {
        "owner_id": f"n % {OWNERS} + 1",
        "species": "'dog'",
        "breed": "'Mixed Breed'",
        "color": "'brown'",
        "sex": "'female'",
        "neutered": "TRUE",
        "birth_date": "'2020-05-17'",
        "birth_date_estimated": "FALSE",
        "weight_g": "12500",
        "status": "'active'",
    }
    return _select(kind, columns, first, last)
