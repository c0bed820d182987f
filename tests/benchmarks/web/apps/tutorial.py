"""SQLModel's tutorial for FastAPI, with an AsyncSession: a dependency with yield, response_model, add, commit, refresh.

https://sqlmodel.tiangolo.com/tutorial/fastapi/
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import date, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from sqlalchemy.engine import make_url
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ...contenders.stock import open_engine
from ...contenders.tutorial import Pet


class PetBase(SQLModel):
    name: str = Field(max_length=100)
    owner_id: int | None = None
    species: str | None = Field(default=None, max_length=50)
    breed: str | None = Field(default=None, max_length=100)
    color: str | None = Field(default=None, max_length=50)
    sex: str = Field(default="unknown", max_length=7)
    neutered: bool | None = None
    birth_date: date | None = None
    birth_date_estimated: bool = False
    weight_g: int | None = None
    microchip: str | None = Field(default=None, max_length=15)
    status: str = Field(default="active", max_length=8)
    deceased_on: date | None = None
    acquired_on: date | None = None
    notes: str | None = None
    external_ref: str | None = Field(default=None, max_length=64)


class PetCreate(PetBase):
    pass


class PetPublic(PetBase):
    id: int
    archived_at: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int


class PetUpdate(SQLModel):
    name: str | None = None
    color: str | None = None
    weight_g: int | None = None


def build(url: str) -> FastAPI:
    engine = asyncio.run(open_engine(make_url(url)))
    app = FastAPI()

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            yield session

    Session = Annotated[AsyncSession, Depends(get_session)]  # noqa: N806  # as the tutorials name it

    @app.post("/pets", response_model=PetPublic)
    async def create_pet(pet: PetCreate, session: Session) -> Pet:
        db_pet = Pet.model_validate(pet, update={"name_key": pet.name.casefold()})
        session.add(db_pet)
        await session.commit()
        await session.refresh(db_pet)
        return db_pet

    @app.get("/pets", response_model=list[PetPublic])
    async def read_pets(session: Session, offset: int = 0, limit: Annotated[int, Query(le=100)] = 100) -> list[Pet]:
        living = select(Pet).where(col(Pet.archived_at).is_(None)).order_by(col(Pet.name_key), col(Pet.id))
        return list((await session.exec(living.offset(offset).limit(limit))).all())

    @app.get("/pets/{pet_id}", response_model=PetPublic)
    async def read_pet(pet_id: int, session: Session) -> Pet:
        pet = await session.get(Pet, pet_id)
        if not pet:
            raise HTTPException(status_code=404, detail="Pet not found")
        return pet

    @app.patch("/pets/{pet_id}", response_model=PetPublic)
    async def update_pet(pet_id: int, pet: PetUpdate, session: Session) -> Pet:
        db_pet = await session.get(Pet, pet_id)
        if not db_pet:
            raise HTTPException(status_code=404, detail="Pet not found")
        db_pet.sqlmodel_update(pet.model_dump(exclude_unset=True))
        session.add(db_pet)
        await session.commit()
        await session.refresh(db_pet)
        return db_pet

    return app
