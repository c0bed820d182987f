"""The shapes of a pet for the applications that map it with plain SQLAlchemy."""

from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ...contenders.stock import now


def _name_key(data: dict[str, Any]) -> str:
    return str(data["name"]).casefold()


class _Pet(BaseModel):
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
    status: str = Field(default="active", max_length=8)
    deceased_on: date | None = None
    acquired_on: date | None = None
    notes: str | None = None


class PetCreate(_Pet):
    # No unique column: FastCRUD's endpoint answers 422 if one is None in any stored row.
    name_key: str = Field(default_factory=_name_key)
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now)
    version: int = 1


class PetRead(_Pet):
    model_config = ConfigDict(from_attributes=True)

    id: int
    microchip: str | None
    external_ref: str | None
    archived_at: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int


class PetUpdate(BaseModel):
    name: str | None = None
    color: str | None = None
    weight_g: int | None = None
