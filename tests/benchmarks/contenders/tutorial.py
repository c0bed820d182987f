"""SQLModel as its tutorial and most articles write it: add, commit, refresh; select, first; offset and limit."""

from collections.abc import AsyncIterator, Iterable
from datetime import date, datetime
from typing import Any

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ..rows import FOUND, PAGE, full_pet, full_user
from .stock import now, open_engine


class _Base(SQLModel, registry=registry()):
    """A metadata of its own, beside SQLModel's."""


class _Bookkeeping(_Base):
    notes: str | None = None
    external_ref: str | None = Field(default=None, max_length=64, unique=True)
    archived_at: datetime | None = None
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now, sa_column_kwargs={"onupdate": now})
    version: int = 1
    name_key: str = Field(max_length=300)


class User(_Bookkeeping, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=100)
    email: str | None = Field(default=None, max_length=254, unique=True)
    phone: str | None = Field(default=None, max_length=32, index=True)
    address: str | None = Field(default=None, max_length=255)
    city: str | None = Field(default=None, max_length=80)
    postal_code: str | None = Field(default=None, max_length=16)


class Pet(_Bookkeeping, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=100)
    owner_id: int | None = Field(default=None, foreign_key="user.id", index=True)
    species: str | None = Field(default=None, max_length=50, index=True)
    breed: str | None = Field(default=None, max_length=100)
    color: str | None = Field(default=None, max_length=50)
    sex: str = Field(default="unknown", max_length=7)
    neutered: bool | None = None
    birth_date: date | None = None
    birth_date_estimated: bool = False
    weight_g: int | None = None
    microchip: str | None = Field(default=None, max_length=15, unique=True)
    status: str = Field(default="active", max_length=8)
    deceased_on: date | None = None
    acquired_on: date | None = None


_LIVING = select(Pet).where(col(Pet.archived_at).is_(None)).order_by(col(Pet.name_key), col(Pet.id))


async def open_contender(url: URL) -> "Contender":
    return Contender(await open_engine(url))


class Contender:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.session = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)

    async def close(self) -> None:
        await self.engine.dispose()

    async def create(self, values: dict[str, Any]) -> int | None:
        async with self.session() as session:
            pet = Pet(**full_pet(values))
            session.add(pet)
            await session.commit()
            await session.refresh(pet)
            return pet.id

    async def get(self, pet_id: int) -> Pet | None:
        async with self.session() as session:
            return (await session.exec(select(Pet).where(Pet.id == pet_id))).first()

    async def place(self, depth: int) -> int:
        return depth

    async def page(self, place: int | None) -> list[Pet]:
        async with self.session() as session:
            return list((await session.exec(_LIVING.offset(place or 0).limit(PAGE))).all())

    async def update(self, pet_id: int, color: str) -> Pet:
        async with self.session() as session:
            pet = (await session.exec(select(Pet).where(Pet.id == pet_id))).one()
            pet.color = color
            session.add(pet)
            await session.commit()
            await session.refresh(pet)
            return pet

    async def delete(self, pet_id: int) -> None:
        async with self.session() as session:
            pet = (await session.exec(select(Pet).where(Pet.id == pet_id))).one()
            await session.delete(pet)
            await session.commit()

    async def bulk_pets(self, pets: Iterable[dict[str, Any]]) -> None:
        async with self.session() as session:
            session.add_all([Pet(**full_pet(values)) for values in pets])
            await session.commit()

    async def bulk_users(self, users: Iterable[dict[str, Any]]) -> None:
        async with self.session() as session:
            session.add_all([User(**full_user(values)) for values in users])
            await session.commit()

    async def search(self, prefix: str) -> list[Pet]:
        async with self.session() as session:
            query = _LIVING.where(col(Pet.name_key).startswith(prefix)).limit(FOUND)
            return list((await session.exec(query)).all())

    async def stream(self) -> AsyncIterator[Pet]:
        async with self.session() as session:
            query = select(Pet).order_by(col(Pet.id)).execution_options(yield_per=1000)
            async for pet in await session.stream_scalars(query):
                yield pet
