"""Two rows that may be one."""

from typing import Any

from sqlmodel_alembic_async import AsyncSession, Pet, PetCreate, User, UserCreate, create_pet, create_user


async def two_users(session: AsyncSession, kept: dict[str, Any], dropped: dict[str, Any]) -> tuple[User, User]:
    kept, dropped = {"name": "Ada"} | kept, {"name": "Ada"} | dropped
    return await create_user(session, UserCreate(**kept)), await create_user(session, UserCreate(**dropped))


async def two_pets(session: AsyncSession, kept: dict[str, Any], dropped: dict[str, Any]) -> tuple[Pet, Pet]:
    kept, dropped = {"name": "Rex"} | kept, {"name": "Rex"} | dropped
    return await create_pet(session, PetCreate(**kept)), await create_pet(session, PetCreate(**dropped))
