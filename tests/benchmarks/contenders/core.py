"""SQLAlchemy Core written by hand, on the stock driver: what one would write who wants speed and knows how."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from ..rows import FOUND, PAGE, SEEDED, full_pet, full_user
from .stock import Pet, User, now, open_engine

pet = Pet.__table__
user = User.__table__
_LIVING = sa.select(pet).where(pet.c.archived_at.is_(None)).order_by(pet.c.name_key, pet.c.id)


async def open_contender(url: URL) -> "Contender":
    return Contender(await open_engine(url))


class Contender:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.is_mysql = engine.dialect.name in ("mysql", "mariadb")

    async def close(self) -> None:
        await self.engine.dispose()

    async def create(self, values: dict[str, Any]) -> int:
        async with self.engine.begin() as connection:
            return (await connection.execute(sa.insert(pet), full_pet(values))).inserted_primary_key[0]

    async def get(self, pet_id: int) -> sa.Row[Any] | None:
        async with self.engine.connect() as connection:
            return (await connection.execute(sa.select(pet).where(pet.c.id == pet_id))).first()

    async def place(self, depth: int) -> tuple[str, int]:
        async with self.engine.connect() as connection:
            last = (await connection.execute(_LIVING.offset(depth - 1).limit(1))).one()
        return last.name_key, last.id

    async def page(self, place: tuple[str, int] | None) -> list[sa.Row[Any]]:
        query = _LIVING.limit(PAGE) if place is None else _LIVING.where(self._behind(*place)).limit(PAGE)
        async with self.engine.connect() as connection:
            return list((await connection.execute(query)).all())

    def _behind(self, key: str, pet_id: int) -> sa.ColumnElement[bool]:
        if self.is_mysql:  # It serves no comparison of tuples from an index.
            return sa.or_(pet.c.name_key > key, sa.and_(pet.c.name_key == key, pet.c.id > pet_id))
        return sa.tuple_(pet.c.name_key, pet.c.id) > sa.tuple_(sa.literal(key), sa.literal(pet_id))

    async def update(self, pet_id: int, color: str) -> sa.Row[Any] | None:
        values = {"color": color, "updated_at": now(), "version": pet.c.version + 1}
        change = sa.update(pet).where(pet.c.id == pet_id).values(values)
        async with self.engine.begin() as connection:
            if not self.is_mysql:
                return (await connection.execute(change.returning(*pet.c))).first()
            await connection.execute(change)
            return (await connection.execute(sa.select(pet).where(pet.c.id == pet_id))).first()

    async def delete(self, pet_id: int) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(sa.delete(pet).where(pet.c.id == pet_id))

    async def bulk_pets(self, pets: Iterable[dict[str, Any]]) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(sa.insert(pet), [full_pet(values) for values in pets])

    async def bulk_users(self, users: Iterable[dict[str, Any]]) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(sa.insert(user), [full_user(values) for values in users])

    async def search(self, prefix: str) -> list[sa.Row[Any]]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        query = _LIVING.where(pet.c.name_key >= prefix, pet.c.name_key < end).limit(FOUND)
        async with self.engine.connect() as connection:
            return list((await connection.execute(query)).all())

    async def stream(self) -> AsyncIterator[sa.Row[Any]]:
        async with self.engine.connect() as connection:
            query = sa.select(pet).order_by(pet.c.id).execution_options(yield_per=1000)
            async for row in await connection.stream(query):
                yield row

    async def count(self, **values: Any) -> int:
        """Return the number of pets, for checks."""
        query = sa.select(sa.func.count()).select_from(pet).filter_by(**values)
        async with self.engine.connect() as connection:
            return (await connection.execute(query)).scalar_one()

    async def remove_bulk(self, kind: str) -> int:
        """Delete what a bulk load inserted, which is younger than what was seeded."""
        table = {"bulk pets": pet, "bulk users": user}[kind]
        async with self.engine.begin() as connection:
            return (await connection.execute(sa.delete(table).where(table.c.created_at > SEEDED))).rowcount
