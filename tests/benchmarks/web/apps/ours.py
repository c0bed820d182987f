"""The router of this package."""

from fastapi import FastAPI

from sqlmodel_alembic_async import Database
from sqlmodel_alembic_async.fastapi import create_router


def build(url: str) -> FastAPI:
    app = FastAPI()
    app.include_router(create_router(Database(url)))
    return app
