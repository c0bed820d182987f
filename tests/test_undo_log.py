"""The log of one transaction or savepoint."""

import gc

import pytest
import sqlalchemy as sa

from sqlmodel_alembic_async import AsyncSession, PetCreate, PetUpdate, create_pet, get_pet, undo_log, update_pet
from sqlmodel_alembic_async.undo_log import MAX_KEYS, UndoLog, columns, restore, state_of, stored_values


async def test_stored_values_are_those_before_an_edit(session: AsyncSession) -> None:
    pet = await create_pet(session, PetCreate(name="Rex", color="brown"))

    pet.name = "Max"

    values = stored_values(state_of(pet))
    assert (values["name"], values["color"]) == ("Rex", "brown")
    assert set(values) == set(columns(sa.inspect(pet).mapper))


async def test_the_first_values_of_a_row_are_kept(session: AsyncSession) -> None:
    pet = await create_pet(session, PetCreate(name="Rex"))
    log = UndoLog()
    state = state_of(pet)

    log.add_changes([state.key], [state])
    await update_pet(session, pet.id, PetUpdate(name="Max"))
    log.add_changes([state.key], [state])
    log.undo(session.sync_session)

    assert (pet.name, pet.version) == ("Rex", 1)


async def test_a_row_that_was_loaded_after_its_change_is_expired(session: AsyncSession) -> None:
    pet_id = (await create_pet(session, PetCreate(name="Rex"))).id
    await session.commit()
    session.expunge_all()
    log = UndoLog()

    log.assume_any_row_changes(session.sync_session)
    pet = await get_pet(session, pet_id)
    log.undo(session.sync_session)

    assert "name" in sa.inspect(pet).expired_attributes


async def test_a_log_does_not_grow_without_end(session: AsyncSession) -> None:
    log = UndoLog()

    for number in range(3 * MAX_KEYS):
        log.add_changes([("changed", number)], [])
        log.add_insert(("inserted", number))

    assert (len(log.changed), len(log.inserted)) == (MAX_KEYS, MAX_KEYS)
    assert log.unknown_since is not None


async def test_a_row_that_is_gone_is_not_restored(session: AsyncSession) -> None:
    pet = await create_pet(session, PetCreate(name="Rex"))
    state = state_of(pet)
    session.expunge(pet)

    assert restore(session.sync_session, state, {"name": "Max"})
    assert pet.name == "Max"
    del pet
    gc.collect()
    assert not restore(session.sync_session, state, {"name": "Rex"})


async def test_the_first_values_of_a_row_are_kept_beyond_the_limit_of_keys(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undo_log, "MAX_KEYS", 0)
    pet = await create_pet(session, PetCreate(name="Rex"))

    async with session.begin_nested() as savepoint:
        await update_pet(session, pet.id, PetUpdate(name="Max"))
        await update_pet(session, pet.id, PetUpdate(name="Tom"))
        await savepoint.rollback()

    assert (pet.name, pet.version) == ("Rex", 1)


async def test_a_row_that_was_loaded_after_a_change_beyond_the_limit_of_keys_is_expired(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undo_log, "MAX_KEYS", 0)
    pet_id = (await create_pet(session, PetCreate(name="Rex"))).id
    await session.commit()
    session.expunge_all()

    async with session.begin_nested() as savepoint:
        pet = await update_pet(session, pet_id, PetUpdate(name="Max"))
        await savepoint.rollback()

    assert "name" in sa.inspect(pet).expired_attributes
