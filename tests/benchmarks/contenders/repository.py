"""advanced-alchemy: a repository in a session for each operation, with auto_commit, as its documentation shows."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from advanced_alchemy.config import AsyncSessionConfig, SQLAlchemyAsyncConfig
from advanced_alchemy.filters import ComparisonFilter, LimitOffset, NullFilter, OrderBy
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from ..rows import FOUND, PAGE, full_pet, full_user
from .stock import Pet, User, open_engine

_LIVING = (NullFilter("archived_at"), OrderBy("name_key"), OrderBy("id"))
_BATCH = 1000


class PetRepository(SQLAlchemyAsyncRepository[Pet]):
    model_type = Pet


class UserRepository(SQLAlchemyAsyncRepository[User]):
    model_type = User


async def open_contender(url: URL) -> "Contender":
    return Contender(await open_engine(url))


class Contender:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        config = SQLAlchemyAsyncConfig(
            engine_instance=engine, session_config=AsyncSessionConfig(expire_on_commit=False)
        )
        self.session = config.get_session

    async def close(self) -> None:
        await self.engine.dispose()

    async def create(self, values: dict[str, Any]) -> int:
        async with self.session() as session:
            return (await PetRepository(session=session).add(Pet(**full_pet(values)), auto_commit=True)).id

    async def get(self, pet_id: int) -> Pet:
        async with self.session() as session:
            return await PetRepository(session=session).get(pet_id)

    async def place(self, depth: int) -> int:
        return depth

    async def page(self, place: int | None) -> list[Pet]:
        async with self.session() as session:
            return await PetRepository(session=session).get_many(*_LIVING, LimitOffset(PAGE, place or 0))

    async def update(self, pet_id: int, color: str) -> Pet:
        async with self.session() as session:
            return await PetRepository(session=session).update(Pet(id=pet_id, color=color), auto_commit=True)

    async def delete(self, pet_id: int) -> None:
        async with self.session() as session:
            await PetRepository(session=session).delete(pet_id, auto_commit=True)

    async def bulk_pets(self, pets: Iterable[dict[str, Any]]) -> None:
        async with self.session() as session:
            rows = [Pet(**full_pet(values)) for values in pets]
            await PetRepository(session=session).add_many(rows, auto_commit=True)

    async def bulk_users(self, users: Iterable[dict[str, Any]]) -> None:
        async with self.session() as session:
            rows = [User(**full_user(values)) for values in users]
            await UserRepository(session=session).add_many(rows, auto_commit=True)

    async def search(self, prefix: str) -> list[Pet]:
        async with self.session() as session:
            begins = ComparisonFilter("name_key", "startswith", prefix)
            return await PetRepository(session=session).get_many(begins, *_LIVING, LimitOffset(FOUND, 0))

    async def stream(self) -> AsyncIterator[Pet]:
        # It has no stream, and each page by offset costs more than the one before: batches by id.
        last = 0
        async with self.session() as session:
            repository = PetRepository(session=session, auto_expunge=True)
            while batch := await repository.get_many(Pet.id > last, OrderBy("id"), LimitOffset(_BATCH, 0)):
                for pet in batch:
                    yield pet
                last = batch[-1].id
