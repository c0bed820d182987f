"""The pets of one owner, changed together."""

from sqlmodel import col

from sqlmodel_alembic_async import AsyncSession, Pet, PetCreate, UserCreate, create_pet, create_user, get_pet
from sqlmodel_alembic_async.services.statements.owned_pets import update_pets_of


async def test_the_pets_of_one_owner_change_and_no_others(session: AsyncSession) -> None:
    ada, bob = [await create_user(session, UserCreate(name=name)) for name in ("Ada", "Bob")]
    rex, max_ = [await create_pet(session, PetCreate(name=name, owner_id=ada.id)) for name in ("Rex", "Max")]
    tom = await create_pet(session, PetCreate(name="Tom", owner_id=bob.id))

    changed = await update_pets_of(session, ada.id, {"color": "red"}, col(Pet.name) != "Max")

    assert changed == 1
    assert [(pet.color, pet.version) for pet in (rex, max_, tom)] == [("red", 2), (None, 1), (None, 1)]
    session.expunge_all()
    assert [(await get_pet(session, pet.id)).color for pet in (rex, max_, tom)] == ["red", None, None]
