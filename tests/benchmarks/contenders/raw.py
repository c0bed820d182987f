"""The driver alone, with hand-written SQL: the ceiling, without rows of types, transactions or checks."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from sqlalchemy.engine import URL

from ..rows import FOUND, PAGE, PET_COLUMNS, USER_COLUMNS, full_pet, full_user
from . import drivers
from .stock import now

_COLUMNS = ", ".join(PET_COLUMNS)
_LIVING = f"SELECT {_COLUMNS} FROM pet WHERE archived_at IS NULL"
_ORDER = "ORDER BY name_key, id LIMIT"


async def open_contender(url: URL) -> "Contender":
    return Contender(await drivers.connect(url))


class Contender:
    def __init__(self, driver: Any) -> None:
        self.driver = driver
        behind = "(name_key, id) > (?, ?)" if driver.row_values else "(name_key > ? OR (name_key = ? AND id > ?))"
        change = "UPDATE pet SET color = ?, updated_at = ?, version = version + 1 WHERE id = ?"
        self.sql = {
            "create": _insert("pet", PET_COLUMNS),
            "bulk_users": _insert(driver.user, USER_COLUMNS),
            "get": f"SELECT {_COLUMNS} FROM pet WHERE id = ?",
            "page": f"{_LIVING} {_ORDER} {PAGE}",
            "place": f"SELECT name_key, id FROM pet WHERE archived_at IS NULL {_ORDER} 1 OFFSET ?",
            "deep page": f"{_LIVING} AND {behind} {_ORDER} {PAGE}",
            "update": f"{change} RETURNING {_COLUMNS}" if driver.update_returning else change,
            "delete": "DELETE FROM pet WHERE id = ?",
            "search": f"{_LIVING} AND name_key >= ? AND name_key < ? {_ORDER} {FOUND}",
            "stream": f"SELECT {_COLUMNS} FROM pet ORDER BY id",
        }
        self.sql = {name: driver.prepare(text) for name, text in self.sql.items()}

    async def close(self) -> None:
        await self.driver.close()

    async def create(self, values: dict[str, Any]) -> int:
        return await self.driver.insert(self.sql["create"], self._pet(values))

    async def get(self, pet_id: int) -> Any:
        return (await self.driver.fetch(self.sql["get"], (pet_id,)))[0]

    async def place(self, depth: int) -> tuple[str, int]:
        [(key, pet_id)] = await self.driver.fetch(self.sql["place"], (depth - 1,))
        return key, pet_id

    async def page(self, place: tuple[str, int] | None) -> list[Any]:
        if place is None:
            return await self.driver.fetch(self.sql["page"], ())
        return await self.driver.fetch(
            self.sql["deep page"], place if self.driver.row_values else (place[0], place[0], place[1])
        )

    async def update(self, pet_id: int, color: str) -> Any:
        values = (color, self.driver.moment(now()), pet_id)
        if self.driver.update_returning:
            return (await self.driver.fetch(self.sql["update"], values))[0]
        await self.driver.run(self.sql["update"], values)
        return await self.get(pet_id)

    async def delete(self, pet_id: int) -> None:
        await self.driver.run(self.sql["delete"], (pet_id,))

    async def bulk_pets(self, pets: Iterable[dict[str, Any]]) -> None:
        await self.driver.insert_many(self.sql["create"], map(self._pet, pets))

    async def bulk_users(self, users: Iterable[dict[str, Any]]) -> None:
        rows = (self._values(USER_COLUMNS, full_user(values)) for values in users)
        await self.driver.insert_many(self.sql["bulk_users"], rows)

    async def search(self, prefix: str) -> list[Any]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        return await self.driver.fetch(self.sql["search"], (prefix, end))

    async def stream(self) -> AsyncIterator[Any]:
        async for row in self.driver.stream(self.sql["stream"]):
            yield row

    def _pet(self, values: dict[str, Any]) -> tuple[Any, ...]:
        row = full_pet(values)
        row["birth_date"] = self.driver.day(row["birth_date"])
        return self._values(PET_COLUMNS, row)

    def _values(self, columns: list[str], row: dict[str, Any]) -> tuple[Any, ...]:
        row["created_at"] = row["updated_at"] = self.driver.moment(row["created_at"])
        return tuple([row[name] for name in columns[1:]])


def _insert(table: str, columns: list[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns[1:])}) VALUES ({', '.join('?' * (len(columns) - 1))})"
