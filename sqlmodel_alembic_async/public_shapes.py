"""The shapes in which rows go out: what an application returns to its callers."""

from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, model_validator

from .fields import Sex, Status

_HINTS = {"pets": 'read the user with with_pets=True, or call await session.refresh(user, ["pets"])'}


class _PublicShape(BaseModel):
    # The input of an error would be a row, with personal data.
    model_config = ConfigDict(from_attributes=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _is_loaded(cls, row: Any) -> Any:
        # Reading an attribute that is not loaded would need the database.
        state = sa.inspect(row, raiseerr=False)
        if isinstance(state, sa.orm.InstanceState) and (missing := cls.model_fields.keys() & state.unloaded):
            hint = _HINTS.get(min(missing), "call await session.refresh(row)")
            raise ValueError(f"not loaded: {', '.join(sorted(missing))}; {hint}")
        return row


class UserPublic(_PublicShape):
    """A user, as an application returns it: all columns but `name_key`."""

    id: int
    name: str
    email: str | None = None
    phone: str | None = None
    address: str | None = None
    city: str | None = None
    postal_code: str | None = None
    notes: str | None = None
    external_ref: str | None = None
    archived_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    version: int


class PetPublic(_PublicShape):
    """A pet, as an application returns it: all columns but `name_key`. `weight_g` is in grams."""

    id: int
    name: str
    owner_id: int | None = None
    species: str | None = None
    breed: str | None = None
    color: str | None = None
    sex: Sex
    neutered: bool | None = None
    birth_date: date | None = None
    birth_date_estimated: bool
    weight_g: int | None = None
    microchip: str | None = None
    status: Status
    deceased_on: date | None = None
    acquired_on: date | None = None
    notes: str | None = None
    external_ref: str | None = None
    archived_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    version: int


class UserPublicWithPets(UserPublic):
    """A user with the pets, which must be loaded, as get_user(session, user_id, with_pets=True) does."""

    pets: list[PetPublic]
