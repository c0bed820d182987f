"""advanced-alchemy's service in endpoints, as its documentation for FastAPI shows them."""

import asyncio
from typing import Annotated

from advanced_alchemy.extensions.fastapi import (
    AdvancedAlchemy,
    AsyncSessionConfig,
    SQLAlchemyAsyncConfig,
    filters,
    repository,
    service,
)
from fastapi import Depends, FastAPI
from sqlalchemy.engine import make_url

from ...contenders.stock import Pet, open_engine
from .shapes import PetCreate, PetRead, PetUpdate


class PetService(service.SQLAlchemyAsyncRepositoryService[Pet]):
    class Repository(repository.SQLAlchemyAsyncRepository[Pet]):
        model_type = Pet

    repository_type = Repository


def build(url: str) -> FastAPI:
    config = SQLAlchemyAsyncConfig(
        engine_instance=asyncio.run(open_engine(make_url(url))),
        session_config=AsyncSessionConfig(expire_on_commit=False),
        commit_mode="autocommit",
    )
    app = FastAPI()
    alchemy = AdvancedAlchemy(config=config, app=app)
    Pets = Annotated[PetService, Depends(alchemy.provide_service(PetService))]  # noqa: N806  # a type
    # Its `sort_field` passes an option to Query() that FastAPI 0.165 refuses: the endpoint sorts.
    pages = alchemy.provide_filters({"pagination_type": "limit_offset"})
    Filters = Annotated[list[filters.FilterTypes], Depends(pages)]  # noqa: N806  # a type
    by_name = (filters.OrderBy("name_key"), filters.OrderBy("id"))

    @app.get("/pets", response_model=service.OffsetPagination[PetRead])
    async def list_pets(pets: Pets, page: Filters) -> service.OffsetPagination[PetRead]:
        results, total = await pets.list_and_count(*page, *by_name)
        return pets.to_schema(results, total, filters=page, schema_type=PetRead)

    @app.post("/pets", response_model=PetRead)
    async def create_pet(pets: Pets, data: PetCreate) -> PetRead:
        # Of a shape, it would take only what the client sent.
        return pets.to_schema(await pets.create(data.model_dump()), schema_type=PetRead)

    @app.get("/pets/{pet_id}", response_model=PetRead)
    async def get_pet(pets: Pets, pet_id: int) -> PetRead:
        return pets.to_schema(await pets.get(pet_id), schema_type=PetRead)

    @app.patch("/pets/{pet_id}", response_model=PetRead)
    async def update_pet(pets: Pets, pet_id: int, data: PetUpdate) -> PetRead:
        return pets.to_schema(await pets.update(data, item_id=pet_id), schema_type=PetRead)

    return app
