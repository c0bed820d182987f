"""Tables in another schema, as schema_translate_map names it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlmodel import SQLModel

from sqlmodel_alembic_async import (
    AlreadyExistsError,
    AsyncSession,
    Database,
    Pet,
    PetCreate,
    UpsertReport,
    UserCreate,
    UserHasPetsError,
    UserNotFoundError,
    create_pet,
    create_pets,
    create_user,
    delete_user,
    get_pet,
    get_user,
    list_pets,
    list_users,
    transfer_pet,
    upsert_pet,
    upsert_pets,
    upsert_user,
)
from sqlmodel_alembic_async.models import TABLES

from ..servers import new_database

NOBODY = 2_000_000_000


@pytest.fixture
def schema(engine_name: str, tmp_path: Path) -> Iterator[str]:
    """The name of another schema: on MariaDB that is a database, on SQLite a file."""
    with new_database(engine_name, tmp_path) as url:
        yield str(url.database) if engine_name != "postgresql" else "the other"


@pytest.fixture
async def session(empty_url: URL, schema: str) -> AsyncIterator[AsyncSession]:
    def attach(connection: Any, record: object) -> None:
        connection.cursor().execute(f"ATTACH DATABASE '{schema}' AS \"{schema}\"")

    async with Database(empty_url) as db:
        dialect = db.engine.dialect.name
        if dialect == "sqlite":
            event.listen(db.engine.sync_engine, "connect", attach)
        engine = db.engine.execution_options(schema_translate_map={None: schema})
        async with engine.begin() as connection:
            if dialect == "postgresql":
                await connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')
            tables = [SQLModel.metadata.tables[name] for name in TABLES]
            await connection.run_sync(SQLModel.metadata.create_all, tables=tables)
        async with AsyncSession(engine) as session:
            yield session


async def test_an_owner_who_does_not_exist_is_not_found(session: AsyncSession) -> None:
    pet_id = (await create_pet(session, PetCreate(name="Rex"))).id
    await session.commit()

    with pytest.raises(UserNotFoundError) as caught:
        await create_pet(session, PetCreate(name="Max", owner_id=NOBODY))
    assert caught.value.key == NOBODY
    await session.rollback()
    with pytest.raises(UserNotFoundError) as caught:
        await transfer_pet(session, pet_id, NOBODY)
    assert caught.value.key == NOBODY
    await session.rollback()
    with pytest.raises(UserNotFoundError):
        await create_pets(session, [PetCreate(name="Max", owner_id=NOBODY)])
    await session.rollback()
    assert [pet.name for pet in (await list_pets(session)).items] == ["Rex"]


async def test_the_other_conflicts_have_their_names_too(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", email="ada@example.com"))
    session.add(Pet(name="Rex", owner_id=ada.id))
    await session.commit()

    with pytest.raises(UserHasPetsError):
        await delete_user(session, ada.id)
    with pytest.raises(AlreadyExistsError) as caught:
        await create_user(session, UserCreate(name="Ada", email="ada@example.com"))
    assert caught.value.field == "email"


async def test_rows_are_locked_related_and_upserted_there(session: AsyncSession) -> None:
    ada, _ = await upsert_user(session, UserCreate(name="Ada", external_ref="S1"))
    rows = [PetCreate(name=name, external_ref=name, owner_id=ada.id) for name in ("Rex", "Max")]
    assert await upsert_pets(session, rows) == UpsertReport(2, 0, 0)
    changed = [PetCreate(name="Rex", external_ref="Rex", color="red"), PetCreate(name="Leo", external_ref="Leo")]
    assert await upsert_pets(session, changed) == UpsertReport(1, 1, 0)
    leo, outcome = await upsert_pet(session, PetCreate(name="Leo", external_ref="Leo", owner_id=ada.id))
    assert (outcome, leo.owner_id) == ("updated", ada.id)

    assert [pet.name for pet in (await list_users(session, with_pets=True)).items[0].pets] == ["Max", "Rex", "Leo"]
    assert (await get_pet(session, leo.id, with_owner=True, for_update=True)).owner is ada
    assert await get_user(session, ada.id, for_update=True) is ada
    await session.commit()
    with pytest.raises(UserNotFoundError):
        await upsert_pets(session, [rows[0].model_copy(update={"owner_id": NOBODY})])
