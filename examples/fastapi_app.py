"""Users and pets by HTTP. Start it with: uvicorn examples.fastapi_app:app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from sqlmodel_alembic_async import database, migrations
from sqlmodel_alembic_async.fastapi import create_router


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Create or upgrade the tables at the start; close the connections at the end."""
    async with database:
        await migrations.upgrade()
        yield


app = FastAPI(title="Users and pets", lifespan=lifespan)
app.include_router(create_router(database))
