"""This library, as its README shows it."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from sqlalchemy.engine import URL

from sqlmodel_alembic_async import (
    Database,
    Pet,
    PetCreate,
    PetUpdate,
    UserCreate,
    create_pet,
    create_pets,
    create_users,
    delete_pet,
    get_pet,
    list_pets,
    stream_pets,
    update_pet,
)

from ..rows import FOUND, PAGE


async def open_contender(url: URL) -> "Contender":
    return Contender(Database(url))


class Contender:
    def __init__(self, db: Database) -> None:
        self.db = db

    async def close(self) -> None:
        await self.db.dispose()

    async def create(self, values: dict[str, Any]) -> int | None:
        async with self.db.transaction() as session:
            pet = await create_pet(session, PetCreate(**values))
        return pet.id

    async def get(self, pet_id: int) -> Pet:
        async with self.db.reading() as session:
            return await get_pet(session, pet_id)

    async def place(self, depth: int) -> str | None:
        async with self.db.reading() as session:
            return (await list_pets(session, limit=PAGE, offset=depth - PAGE)).next

    async def page(self, place: str | None) -> list[Pet]:
        async with self.db.reading() as session:
            return (await list_pets(session, limit=PAGE, after=place)).items

    async def update(self, pet_id: int, color: str) -> Pet:
        async with self.db.transaction() as session:
            return await update_pet(session, pet_id, PetUpdate(color=color))

    async def delete(self, pet_id: int) -> None:
        async with self.db.transaction() as session:
            await delete_pet(session, pet_id)

    async def bulk_pets(self, pets: Iterable[dict[str, Any]]) -> None:
        async with self.db.transaction() as session:
            await create_pets(session, (PetCreate(**values) for values in pets))

    async def bulk_users(self, users: Iterable[dict[str, Any]]) -> None:
        async with self.db.transaction() as session:
            await create_users(session, (UserCreate(**values) for values in users))

    async def search(self, prefix: str) -> list[Pet]:
        async with self.db.reading() as session:
            return (await list_pets(session, name_prefix=prefix, limit=FOUND)).items

    async def stream(self) -> AsyncIterator[Pet]:
        async with self.db.reading() as session:
            async for pet in stream_pets(session, order_by="id"):
                yield pet
