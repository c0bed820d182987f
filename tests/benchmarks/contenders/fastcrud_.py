"""FastCRUD: one FastCRUD(Model), a session for each operation, rows as dictionaries, as its documentation shows."""

from collections.abc import AsyncIterator, Iterable
from datetime import date, datetime
from typing import Any

from fastcrud import FastCRUD
from pydantic import BaseModel
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from ..rows import FOUND, PAGE, full_pet, full_user
from .stock import Pet, User, open_engine

_ORDER = ["name_key", "id"]
_BATCH = 1000


class _Bookkeeping(BaseModel):
    notes: str | None = None
    external_ref: str | None = None
    archived_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    version: int
    name_key: str


class CreateUser(_Bookkeeping):
    name: str
    email: str | None = None
    phone: str | None = None
    address: str | None = None
    city: str | None = None
    postal_code: str | None = None


class CreatePet(_Bookkeeping):
    name: str
    owner_id: int | None = None
    species: str | None = None
    breed: str | None = None
    color: str | None = None
    sex: str
    neutered: bool | None = None
    birth_date: date | None = None
    birth_date_estimated: bool
    weight_g: int | None = None
    microchip: str | None = None
    status: str
    deceased_on: date | None = None
    acquired_on: date | None = None


class ReadPet(CreatePet):
    id: int


class UpdatePet(BaseModel):
    color: str | None = None


pet_crud = FastCRUD(Pet)
user_crud = FastCRUD(User)


async def open_contender(url: URL) -> "Contender":
    return Contender(await open_engine(url))


class Contender:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.session = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)

    async def close(self) -> None:
        await self.engine.dispose()

    async def create(self, values: dict[str, Any]) -> int:
        async with self.session() as session:
            pet = await pet_crud.create(session, CreatePet(**full_pet(values)), schema_to_select=ReadPet)
        return pet["id"]

    async def get(self, pet_id: int) -> dict[str, Any] | None:
        async with self.session() as session:
            return await pet_crud.get(session, id=pet_id)

    async def place(self, depth: int) -> int:
        return depth

    async def page(self, place: int | None) -> list[dict[str, Any]]:
        return await self._find(place or 0, PAGE)

    async def update(self, pet_id: int, color: str) -> None:
        async with self.session() as session:
            await pet_crud.update(session, UpdatePet(color=color), id=pet_id)

    async def delete(self, pet_id: int) -> None:
        async with self.session() as session:
            await pet_crud.delete(session, id=pet_id)

    async def bulk_pets(self, pets: Iterable[dict[str, Any]]) -> None:
        # It has no create of many: one by one, and one commit.
        async with self.session() as session:
            for values in pets:
                await pet_crud.create(session, CreatePet(**full_pet(values)), commit=False)
            await session.commit()

    async def bulk_users(self, users: Iterable[dict[str, Any]]) -> None:
        async with self.session() as session:
            for values in users:
                await user_crud.create(session, CreateUser(**full_user(values)), commit=False)
            await session.commit()

    async def search(self, prefix: str) -> list[dict[str, Any]]:
        return await self._find(0, FOUND, name_key__startswith=prefix)

    async def _find(self, offset: int, limit: int, **filters: Any) -> list[dict[str, Any]]:
        # The total number, which it counts by default, is nothing that the others give.
        async with self.session() as session:
            found = await pet_crud.get_multi(
                session,
                offset=offset,
                limit=limit,
                sort_columns=_ORDER,
                return_total_count=False,
                archived_at__is=None,
                **filters,
            )
        return found["data"]

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        cursor = None
        async with self.session() as session:
            while True:
                page = await pet_crud.get_multi_by_cursor(session, cursor=cursor, limit=_BATCH)
                for pet in page["data"]:
                    yield pet
                if (cursor := page["next_cursor"]) is None:
                    return
