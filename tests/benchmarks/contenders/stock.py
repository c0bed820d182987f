"""A stock engine, and the tables as everybody would map them: without any validation of ours."""

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import DateTime, ForeignKey, String, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqlmodel_alembic_async import Database

# Everybody gets the same disk and caches: whatever Database sets on its connections. How long a writer waits stays
# each one's own affair.
_SETTINGS = (
    "journal_mode",
    "synchronous",
    "foreign_keys",
    "wal_autocheckpoint",
    "cache_size",
    "mmap_size",
    "temp_store",
)


async def sqlite_settings(url: URL) -> list[str]:
    """Return the PRAGMA statements that make an SQLite connection like those of Database; none for a server."""
    if not url.drivername.startswith("sqlite"):
        return []
    async with Database(url) as db, db.engine.connect() as connection:
        values = {name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in _SETTINGS}
    return [f"PRAGMA {name} = {value}" for name, value in values.items()]


async def open_engine(url: URL) -> AsyncEngine:
    """Return a stock engine: default options, and SQLite's settings as ours."""
    engine = create_async_engine(url)
    if settings := await sqlite_settings(url):

        def configure(connection: Any, record: object) -> None:
            cursor = connection.cursor()
            for setting in settings:
                cursor.execute(setting)
            cursor.close()

        event.listen(engine.sync_engine, "connect", configure)
    return engine


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """A metadata of its own, beside SQLModel's."""


class _Bookkeeping:
    notes: Mapped[str | None]
    external_ref: Mapped[str | None] = mapped_column(String(64), unique=True)
    archived_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now, onupdate=now)
    version: Mapped[int] = mapped_column(default=1)
    name_key: Mapped[str] = mapped_column(String(300))


class User(_Bookkeeping, Base):
    __tablename__ = "user"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    email: Mapped[str | None] = mapped_column(String(254), unique=True)
    phone: Mapped[str | None] = mapped_column(String(32), index=True)
    address: Mapped[str | None] = mapped_column(String(255))
    city: Mapped[str | None] = mapped_column(String(80))
    postal_code: Mapped[str | None] = mapped_column(String(16))


class Pet(_Bookkeeping, Base):
    __tablename__ = "pet"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("user.id"), index=True)
    species: Mapped[str | None] = mapped_column(String(50), index=True)
    breed: Mapped[str | None] = mapped_column(String(100))
    color: Mapped[str | None] = mapped_column(String(50))
    sex: Mapped[str] = mapped_column(String(7), default="unknown")
    neutered: Mapped[bool | None]
    birth_date: Mapped[date | None]
    birth_date_estimated: Mapped[bool] = mapped_column(default=False)
    weight_g: Mapped[int | None]
    microchip: Mapped[str | None] = mapped_column(String(15), unique=True)
    status: Mapped[str] = mapped_column(String(8), default="active")
    deceased_on: Mapped[date | None]
    acquired_on: Mapped[date | None]
