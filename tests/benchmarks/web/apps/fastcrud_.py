"""FastCRUD's crud_router, as its documentation shows it, with a select_schema, so that it answers rows."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastcrud import crud_router
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from ...contenders.stock import Pet, open_engine
from .shapes import PetCreate, PetRead, PetUpdate


def build(url: str) -> FastAPI:
    engine = asyncio.run(open_engine(make_url(url)))
    sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    app = FastAPI()
    app.include_router(
        crud_router(
            session=get_session,
            model=Pet,
            create_schema=PetCreate,
            update_schema=PetUpdate,
            select_schema=PetRead,
            path="/pets",
            tags=["Pets"],
        )
    )
    return app
