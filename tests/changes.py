"""Rows that a session holds, and every kind of change to them: what the tests of undoing undo."""

import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import sqlalchemy as sa

from sqlmodel_alembic_async import (
    AsyncSession,
    Pet,
    PetUpdate,
    User,
    UserUpdate,
    anonymise_user,
    archive_pet,
    archive_user,
    delete_pet,
    delete_user,
    get_pet,
    import_pets,
    list_pets,
    merge_pets,
    merge_users,
    restore_pet,
    transfer_pet,
    update_pet,
    update_user,
)

CHIP = "985141000123456"


class GiveUp(Exception):  # noqa: N818  # it is no mistake
    """Rolls back the savepoint or the transaction that it leaves."""


class Held:
    """The rows that a session holds: Ada has Rex, Bob has nothing, Max is archived and has nobody."""

    def __init__(self, ada: User, bob: User, rex: Pet, max_: Pet) -> None:
        self.ada, self.bob, self.rex, self.max = ada, bob, rex, max_

    def __iter__(self) -> Any:
        return iter(vars(self).values())

    def values(self) -> list[dict[str, Any]]:
        return [row.model_dump() for row in self]


@contextlib.asynccontextmanager
async def rolled_back(session: AsyncSession) -> AsyncIterator[None]:
    """A savepoint that an error leaves."""
    with contextlib.suppress(GiveUp):
        async with session.begin_nested():
            yield
            raise GiveUp


async def edit(session: AsyncSession, held: Held) -> None:
    held.rex.name = "Edited"
    held.ada.city = "Rome"
    await session.flush()


async def edit_and_leave(session: AsyncSession, held: Held) -> None:
    held.rex.name = "Edited"


async def import_over(session: AsyncSession, held: Held) -> None:
    text = "external_ref,name,owner_email,owner_city\nS1,Imported,ada@example.com,Rome\n"
    await import_pets(session, io.StringIO(text))
    assert (held.rex.name, held.ada.city) == ("Imported", "Rome")


async def update_twice(session: AsyncSession, held: Held) -> None:
    await update_pet(session, held.rex.id, PetUpdate(name="Once"))
    await update_pet(session, held.rex.id, PetUpdate(name="Twice"))


async def update_in_a_savepoint(session: AsyncSession, held: Held) -> None:
    async with session.begin_nested():
        await update_pet(session, held.rex.id, PetUpdate(name="Within"))


async def update_around_a_savepoint(session: AsyncSession, held: Held) -> None:
    await update_pet(session, held.rex.id, PetUpdate(name="Before"))
    async with rolled_back(session):
        await update_pet(session, held.rex.id, PetUpdate(color="red"))
    assert (held.rex.name, held.rex.color, held.rex.version) == ("Before", None, 2)
    await update_pet(session, held.rex.id, PetUpdate(name="Behind"))


async def update_by_sql(session: AsyncSession, held: Held) -> None:
    await session.exec(sa.text("UPDATE pet SET name = 'SQL', version = version + 1"))  # type: ignore[call-overload]
    assert {pet.name for pet in (await list_pets(session, archived=None)).items} == {"SQL"}


async def update_by_core(session: AsyncSession, held: Held) -> None:
    table = sa.inspect(Pet).local_table
    await session.exec(sa.update(table).values(name="Core", version=table.c.version + 1))
    assert {pet.name for pet in (await list_pets(session, archived=None)).items} == {"Core"}


async def update_by_orm(session: AsyncSession, held: Held) -> None:
    await session.exec(sa.update(Pet).values(color="red", version=Pet.version + 1))
    assert (await get_pet(session, held.rex.id)).color == "red"


async def delete_by_orm(session: AsyncSession, held: Held) -> None:
    await update_pet(session, held.max.id, PetUpdate(name="Updated"))
    await session.delete(held.max)
    await session.flush()


Change = Callable[[AsyncSession, Held], Awaitable[object]]
CHANGES: dict[str, Change] = {
    "update a pet": lambda session, held: update_pet(session, held.rex.id, PetUpdate(name="W")),
    "update a user": lambda session, held: update_user(session, held.ada.id, UserUpdate(name="W")),
    "update twice": update_twice,
    "update in a savepoint": update_in_a_savepoint,
    "update around a savepoint": update_around_a_savepoint,
    "archive a pet": lambda session, held: archive_pet(session, held.rex.id),
    "archive a user": lambda session, held: archive_user(session, held.ada.id),
    "restore": lambda session, held: restore_pet(session, held.max.id),
    "transfer": lambda session, held: transfer_pet(session, held.rex.id, held.bob.id),
    "release": lambda session, held: transfer_pet(session, held.rex.id, None),
    "delete a pet": lambda session, held: delete_pet(session, held.rex.id),
    "delete a user": lambda session, held: delete_user(session, held.ada.id, pets="release"),
    "merge users": lambda session, held: merge_users(session, held.bob.id, held.ada.id),
    "merge pets": lambda session, held: merge_pets(session, held.rex.id, held.max.id),
    "anonymise": lambda session, held: anonymise_user(session, held.ada.id),
    "import": import_over,
    "edit": edit,
    "edit without a flush": edit_and_leave,
    "text": update_by_sql,
    "Core": update_by_core,
    "ORM statement": update_by_orm,
    "ORM delete": delete_by_orm,
}
