"""Column types: what they are called on each engine, and how they store a moment."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect
from sqlalchemy.engine.interfaces import Dialect

from sqlmodel_alembic_async import Pet, User
from sqlmodel_alembic_async.columns import Text, UTCDateTime

PARIS = timezone(timedelta(hours=1))


def connected(dialect: Dialect, version: tuple[int, ...], *, is_mariadb: bool = False) -> Dialect:
    """Return a dialect that knows its server."""
    dialect.server_version_info = version
    dialect.is_mariadb = is_mariadb  # type: ignore[attr-defined]  # MySQL's
    return dialect


@pytest.mark.parametrize(
    ("dialect", "line", "text", "moment"),
    [
        (sqlite.dialect(), "VARCHAR(50)", "VARCHAR", "DATETIME"),
        (postgresql.dialect(), 'VARCHAR(50) COLLATE "C"', 'VARCHAR COLLATE "C"', "TIMESTAMP WITH TIME ZONE"),
        # Offline, for `alembic upgrade --sql`, `mysql://` may mean either server.
        (
            mysql.dialect(),
            "VARCHAR(50) COLLATE utf8mb4_nopad_bin",
            "LONGTEXT COLLATE utf8mb4_nopad_bin",
            "DATETIME(6)",
        ),
        (
            MariaDBDialect(),
            "VARCHAR(50) COLLATE utf8mb4_nopad_bin",
            "LONGTEXT COLLATE utf8mb4_nopad_bin",
            "DATETIME(6)",
        ),
        (
            connected(mysql.dialect(), (10, 11, 6), is_mariadb=True),
            "VARCHAR(50) COLLATE utf8mb4_nopad_bin",
            "LONGTEXT COLLATE utf8mb4_nopad_bin",
            "DATETIME(6)",
        ),
        (
            connected(mysql.dialect(), (8, 0, 30)),
            "VARCHAR(50) COLLATE utf8mb4_0900_bin",
            "LONGTEXT COLLATE utf8mb4_0900_bin",
            "DATETIME(6)",
        ),
    ],
    ids=["sqlite", "postgresql", "mysql offline", "mariadb offline", "mariadb", "mysql"],
)
def test_a_type_has_its_name_on_each_engine(dialect: Dialect, line: str, text: str, moment: str) -> None:
    assert Text(50).compile(dialect=dialect) == line
    assert Text().compile(dialect=dialect) == text
    assert UTCDateTime().compile(dialect=dialect) == moment


def test_a_text_is_shown_as_a_revision_writes_it() -> None:
    assert [repr(Text(50)), repr(Text())] == ["Text(50)", "Text()"]


def line(length: int) -> str:
    return f"VARCHAR({length}) COLLATE utf8mb4_nopad_bin"


BOOKKEEPING = {"archived_at": "DATETIME(6)", "created_at": "DATETIME(6)", "updated_at": "DATETIME(6)"}
BOOKKEEPING |= {
    "id": "INTEGER",
    "version": "INTEGER",
    "name_key": line(300),
    "notes": "LONGTEXT COLLATE utf8mb4_nopad_bin",
}


@pytest.mark.parametrize(
    ("table", "types"),
    [
        (
            User,
            {
                "name": line(100),
                "email": line(254),
                "phone": line(32),
                "address": line(255),
                "city": line(80),
                "postal_code": line(16),
                "external_ref": line(64),
            },
        ),
        (
            Pet,
            {
                "name": line(100),
                "owner_id": "INTEGER",
                "species": line(50),
                "breed": line(100),
                "color": line(50),
                "sex": line(7),
                "neutered": "BOOL",
                "birth_date": "DATE",
                "birth_date_estimated": "BOOL",
                "weight_g": "INTEGER",
                "microchip": line(15),
                "status": line(8),
                "deceased_on": "DATE",
                "acquired_on": "DATE",
                "external_ref": line(64),
            },
        ),
    ],
)
def test_every_column_has_its_type(table: type, types: dict[str, str]) -> None:
    columns = sa.inspect(table).local_table.columns

    # MySQL's names tell most: lengths, collations and microseconds.
    assert {column.name: column.type.compile(mysql.dialect()) for column in columns} == types | BOOKKEEPING


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (User, {"name", "id", "version", "name_key", "created_at", "updated_at"}),
        (
            Pet,
            {
                *("name", "id", "version", "name_key", "created_at", "updated_at"),
                *("sex", "status", "birth_date_estimated"),
            },
        ),
    ],
)
def test_these_columns_are_not_null(table: type, names: set[str]) -> None:
    columns = sa.inspect(table).local_table.columns

    assert {column.name for column in columns if not column.nullable} == names


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), "2026-01-02 03:04:05.678901"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02 00:00:00.000000"),
        (datetime(2026, 1, 2, 0, 30, tzinfo=PARIS), "2026-01-01 23:30:00.000000"),
        (None, None),
    ],
)
def test_sqlite_stores_a_moment_as_text_in_utc(value: datetime | None, stored: str | None) -> None:
    write = UTCDateTime().bind_processor(sqlite.dialect())
    read = UTCDateTime().result_processor(sqlite.dialect(), None)

    assert write is not None
    assert write(value) == stored
    assert read(stored) == value
    assert value is None or read(stored).tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02 03:04:05.678", datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)),
        ("2026-01-02 03:04:05+01:00", datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)),
        ("2026-01-02 03:04:05.678901Z", datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)),
    ],
)
def test_what_others_wrote_into_sqlite_is_read_in_utc(text: str, moment: datetime) -> None:
    found = UTCDateTime().result_processor(sqlite.dialect(), None)(text)

    assert found is not None
    assert (found, found.tzinfo) == (moment, UTC)


@pytest.mark.parametrize("dialect", [mysql.dialect(), postgresql.dialect()], ids=["mysql", "postgresql"])
@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, None),
        (datetime(2026, 1, 2, 3), datetime(2026, 1, 2, 3, tzinfo=UTC)),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), datetime(2026, 1, 2, 3, tzinfo=UTC)),
        (datetime(2026, 1, 2, 0, 30, tzinfo=PARIS), datetime(2026, 1, 1, 23, 30, tzinfo=UTC)),
    ],
)
def test_what_a_driver_gives_is_read_in_utc(dialect: Dialect, given: datetime | None, read: datetime | None) -> None:
    found = UTCDateTime().result_processor(dialect, None)(given)

    assert (found, getattr(found, "tzinfo", None)) == (read, None if read is None else UTC)


@pytest.mark.parametrize(
    "dialect", [sqlite.dialect(), mysql.dialect(), postgresql.dialect()], ids=lambda value: value.name
)
def test_a_moment_without_a_time_zone_is_not_stored(dialect: Any) -> None:
    write = UTCDateTime().bind_processor(dialect)

    assert write is not None
    with pytest.raises(ValueError, match="timezone"):
        write(datetime(2026, 1, 2))


def test_a_type_lets_statements_be_cached_and_its_length_tells_them_apart() -> None:
    keys = [sa.cast("x", kind)._generate_cache_key() for kind in (Text(5), Text(6), Text(), UTCDateTime())]

    assert None not in keys
    assert len({str(key) for key in keys}) == 4
    assert sa.cast("x", Text(5))._generate_cache_key() == keys[0]
