"""The shapes of the values that callers pass, and the fields of the rows.

A field is declared once, in _UserFields or in a part of _PetFields: the Create shape, the Update shape and the table
inherit it.
"""

from inspect import Signature
from typing import TYPE_CHECKING, Any, Self, get_origin

import sqlalchemy as sa
from pydantic import ConfigDict, model_validator
from sqlmodel import Field, SQLModel

from . import fields as f
from .columns import Text, UTCDateTime
from .plain_signatures import UNCHANGED, plain_types, signature_of

# defer_build: the import of the package builds no validators.
_SHAPE: Any = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)


class _Key(SQLModel):
    if TYPE_CHECKING:
        id: int = Field(default=None, primary_key=True)  # Only a row that has not been flushed has none.
    else:
        id: f.Id | None = Field(default=None, primary_key=True, nullable=False)


class Bookkeeping(SQLModel):
    """The columns that the package maintains; no shape has them, so callers cannot set them."""

    archived_at: f.Moment | None = Field(default=None, sa_type=UTCDateTime)
    created_at: f.Moment = Field(default=None, sa_type=UTCDateTime, nullable=False)
    updated_at: f.Moment = Field(default=None, sa_type=UTCDateTime, nullable=False)
    version: f.Version = Field(default=1, sa_type=sa.Integer, nullable=False)
    name_key: str = Field(default=None, sa_type=Text(f.NAME_KEY_LENGTH), nullable=False)


class _UserFields(SQLModel):
    name: f.Name = Field(sa_type=Text(f.NAME_LENGTH))
    email: f.Email | None = Field(default=None, sa_type=Text(f.EMAIL_LENGTH))
    phone: f.Phone | None = Field(default=None, sa_type=Text(f.PHONE_LENGTH))
    address: f.Address | None = Field(default=None, sa_type=Text(f.ADDRESS_LENGTH))
    city: f.City | None = Field(default=None, sa_type=Text(f.CITY_LENGTH))
    postal_code: f.PostalCode | None = Field(default=None, sa_type=Text(f.POSTAL_CODE_LENGTH))
    notes: f.Notes | None = Field(default=None, sa_type=Text())
    external_ref: f.ExternalRef | None = Field(default=None, sa_type=Text(f.EXTERNAL_REF_LENGTH))


# PetUpdate leaves out the parts of the owner. The fields of the last base class come first.
class _PetName(SQLModel):
    name: f.Name = Field(sa_type=Text(f.NAME_LENGTH))


class _PetOwner(SQLModel):
    owner_id: f.Id | None = Field(default=None, sa_type=sa.Integer)


class _PetDescription(SQLModel):
    species: f.Species | None = Field(default=None, sa_type=Text(f.SPECIES_LENGTH))
    breed: f.Breed | None = Field(default=None, sa_type=Text(f.BREED_LENGTH))
    color: f.Color | None = Field(default=None, sa_type=Text(f.COLOR_LENGTH))
    sex: f.Sex = Field(default="unknown", sa_type=Text(7))
    neutered: f.Flag | None = Field(default=None, sa_type=sa.Boolean)
    birth_date: f.PastDate | None = Field(default=None, sa_type=sa.Date)
    birth_date_estimated: f.Flag = Field(default=False, sa_type=sa.Boolean)
    weight_g: f.Grams | None = Field(default=None, sa_type=sa.Integer)
    microchip: f.Microchip | None = Field(default=None, sa_type=Text(f.MICROCHIP_LENGTH))
    status: f.Status = Field(default="active", sa_type=Text(8))
    deceased_on: f.PastDate | None = Field(default=None, sa_type=sa.Date)


class _PetAcquisition(SQLModel):
    acquired_on: f.Date | None = Field(default=None, sa_type=sa.Date)


class _PetRemarks(SQLModel):
    notes: f.Notes | None = Field(default=None, sa_type=Text())
    external_ref: f.ExternalRef | None = Field(default=None, sa_type=Text(f.EXTERNAL_REF_LENGTH))


class _PetFields(_PetRemarks, _PetAcquisition, _PetDescription, _PetOwner, _PetName):
    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        check_agreement(self.__dict__)
        return self


def check_agreement(pet: dict[str, Any]) -> None:
    """Check the rules between a pet's fields; a field that is not in the dictionary is not checked."""
    if pet.get("birth_date_estimated") and pet.get("birth_date", ...) is None:
        raise ValueError("birth_date_estimated needs a birth_date")
    if deceased_on := pet.get("deceased_on"):
        if pet.get("status", "deceased") != "deceased":
            raise ValueError("deceased_on needs the status deceased")
        if (birth_date := pet.get("birth_date")) and deceased_on < birth_date:
            raise ValueError("deceased_on must not be before birth_date")
    if pet.get("acquired_on") and pet.get("owner_id", ...) is None:
        raise ValueError("acquired_on needs an owner_id")


class _PlainSignature:
    """Shows fields with plain types in help() and IPython: pydantic's signature repeats every validator and column."""

    def __get__(self, instance: object, shape: type[SQLModel]) -> Signature:
        types = plain_types(shape)
        fields = {name: field for name, field in shape.model_fields.items() if name not in Bookkeeping.model_fields}
        is_update = not any(field.is_required() for field in fields.values())
        defaults = {
            name: UNCHANGED if is_update else field.default for name, field in fields.items() if not field.is_required()
        }
        related = shape.__sqlmodel_relationships__  # A row takes its related rows, too.
        defaults |= {name: [] if get_origin(types[name]) is list else None for name in related}
        return signature_of({name: types[name] for name in (*fields, *related)}, defaults)


class WithPlainSignature(SQLModel):
    """A model whose signature shows plain types."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Replace pydantic's signature."""
        cls.__signature__ = _PlainSignature()  # type: ignore[assignment]  # A descriptor: it is built when asked for.

    # A deferred model is completed when it is first used, and gets pydantic's signature then.
    __pydantic_on_complete__ = __pydantic_init_subclass__


def mark_as_built(model: type[SQLModel]) -> None:
    """Let pydantic build at once what contains this deferred model, such as the body of a request in FastAPI.

    FastAPI suppresses a warning of pydantic only while it registers a route. A type that contains a model with
    `defer_build` is built at the first request instead.
    """
    model.model_config = {**model.model_config, "defer_build": False}


class _Shape(WithPlainSignature):
    model_config = _SHAPE

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        mark_as_built(cls)


class UserCreate(_Shape, _UserFields):
    """The values of a new user; only the name is needed. A text is trimmed; a blank one is None.

    Attributes:
        name: 1 to 100 characters on one line.
        email: A valid e-mail address of at most 254 characters, stored in lower case; unique.
        phone: As typed: at most 32 characters, at least 5 digits.
        address: At most 255 characters on one line.
        city: At most 80 characters on one line.
        postal_code: At most 16 characters on one line.
        notes: At most 1,000,000 characters.
        external_ref: The key of the user in another system: at most 64 characters; unique.

    """


class PetCreate(_Shape, _PetFields):
    """The values of a new pet; only the name is needed. A text is trimmed; a blank one is None.

    Attributes:
        name: 1 to 100 characters on one line; need not be unique.
        owner_id: The id of a user, or None.
        species: At most 50 characters, stored in lower case.
        breed: At most 100 characters on one line.
        color: At most 50 characters on one line.
        sex: "male", "female" or "unknown".
        neutered: True, False, or None where it is not known.
        birth_date: A date that is not in the future, also as text: YYYY-MM-DD.
        birth_date_estimated: Whether the birth date is a guess; needs a birth date.
        weight_g: The weight in grams: an int of at least 1.
        microchip: 15 digits as in ISO 11784, or an older chip's 9 digits or 10 letters and digits; spaces, "-", "." and
            "*" are removed; unique.
        status: "active", "missing" or "deceased".
        deceased_on: A date that is not in the future; needs the status "deceased", and not before the birth date.
        acquired_on: The first day with this owner; needs an owner.
        notes: At most 1,000,000 characters.
        external_ref: The key of the pet in another system: at most 64 characters; unique.

    """


def _leave_defaults_out(schema: dict[str, Any]) -> None:
    """Remove null, which would clear the field, as the default of a field that an omission leaves as it is."""
    for field in schema["properties"].values():
        del field["default"]


_UPDATE: Any = ConfigDict(json_schema_extra=_leave_defaults_out)


class UserUpdate(_Shape, _UserFields):
    """Changes of a user: an omitted field stays, None clears it. The fields are those of UserCreate."""

    model_config = _UPDATE

    name: f.Name = Field(default=None)


class PetUpdate(_Shape, _PetRemarks, _PetDescription, _PetName):
    """Changes of a pet: an omitted field stays, None clears it. The fields are those of PetCreate.

    The owner and `acquired_on` are not among them: transfer_pet() changes both together.
    """

    model_config = _UPDATE

    name: f.Name = Field(default=None)
    sex: f.Sex = Field(default=None)
    status: f.Status = Field(default=None)
    birth_date_estimated: f.Flag = Field(default=None)

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        check_agreement({name: getattr(self, name) for name in self.model_fields_set})
        return self


class UserRow(Bookkeeping, _UserFields, _Key):
    """The validation of a user row before it is written."""

    model_config = _SHAPE | {"title": "User"}


class PetRow(Bookkeeping, _PetFields, _Key):
    """The validation of a pet row before it is written."""

    model_config = _SHAPE | {"title": "Pet"}
