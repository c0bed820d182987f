"""The tables User and Pet, and the shapes in which callers hand in their values.

A field is declared once, in _UserFields or _PetFields: the Create shape, the row and the table inherit it.
"""

from typing import Any, Self, TypeVar

import sqlalchemy as sa
from pydantic import ConfigDict, model_validator
from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, PrimaryKeyConstraint, UniqueConstraint
from sqlalchemy.orm import declared_attr
from sqlmodel import Field, Relationship, SQLModel

from . import fields as f
from .columns import Text, UTCDateTime
from .row_validation import validate_on_flush
from .schema import order_unique_constraints

# Deferred: what only a program that uses it needs is not built at import.
_SHAPE: Any = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)


class _Key(SQLModel):
    id: f.Id | None = Field(default=None, primary_key=True, nullable=False)


class _Bookkeeping(SQLModel):
    """What the library keeps about a row; no shape lets a caller set it."""

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


class _PetFields(SQLModel):
    name: f.Name = Field(sa_type=Text(f.NAME_LENGTH))
    owner_id: f.Id | None = Field(default=None, sa_type=sa.Integer)
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
    acquired_on: f.Date | None = Field(default=None, sa_type=sa.Date)
    notes: f.Notes | None = Field(default=None, sa_type=Text())
    external_ref: f.ExternalRef | None = Field(default=None, sa_type=Text(f.EXTERNAL_REF_LENGTH))

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        check_agreement(self.__dict__)
        return self


def check_agreement(pet: dict[str, Any]) -> None:
    """Check the rules across a pet's fields, as far as the fields are known."""
    if pet.get("birth_date_estimated") and pet.get("birth_date", ...) is None:
        raise ValueError("birth_date_estimated needs a birth_date")
    if deceased_on := pet.get("deceased_on"):
        if pet.get("status", "deceased") != "deceased":
            raise ValueError("deceased_on needs the status deceased")
        if (birth_date := pet.get("birth_date")) and deceased_on < birth_date:
            raise ValueError("deceased_on must not be before birth_date")
    if pet.get("acquired_on") and pet.get("owner_id", ...) is None:
        raise ValueError("acquired_on needs an owner_id")


class UserCreate(_UserFields):
    """The values of a new user; only the name is needed."""

    model_config = _SHAPE


class PetCreate(_PetFields):
    """The values of a new pet; only the name is needed. `weight_g` is in grams, `microchip` as in ISO 11784."""

    model_config = _SHAPE


class UserUpdate(SQLModel):
    """Changes to a user: what is omitted stays, None clears."""

    model_config = _SHAPE

    name: f.Name = Field(default=None)
    email: f.Email | None = None
    phone: f.Phone | None = None
    address: f.Address | None = None
    city: f.City | None = None
    postal_code: f.PostalCode | None = None
    notes: f.Notes | None = None
    external_ref: f.ExternalRef | None = None


class PetUpdate(SQLModel):
    """Changes to a pet: what is omitted stays, None clears. Its owner changes by transfer_pet only."""

    model_config = _SHAPE

    name: f.Name = Field(default=None)
    species: f.Species | None = None
    breed: f.Breed | None = None
    color: f.Color | None = None
    sex: f.Sex = Field(default=None)
    neutered: f.Flag | None = None
    birth_date: f.PastDate | None = None
    birth_date_estimated: f.Flag = Field(default=None)
    weight_g: f.Grams | None = None
    microchip: f.Microchip | None = None
    status: f.Status = Field(default=None)
    deceased_on: f.PastDate | None = None
    notes: f.Notes | None = None
    external_ref: f.ExternalRef | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        check_agreement({name: getattr(self, name) for name in self.model_fields_set})
        return self


class _UserRow(_Bookkeeping, _UserFields, _Key):
    """What every user row must satisfy on its way into the database."""

    model_config = _SHAPE


class _PetRow(_Bookkeeping, _PetFields, _Key):
    """What every pet row must satisfy on its way into the database."""

    model_config = _SHAPE


class _Table(SQLModel):
    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805  # SQLAlchemy hands in the class
        # Every ORM update carries the version it read, so that a stale copy never overwrites a newer row.
        return {"version_id_col": cls.version}  # type: ignore[attr-defined]  # mapped by the tables below

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        fields = type(self).model_fields
        return [
            (name, value) for name, value in shown_values(self).items() if value not in (None, fields[name].default)
        ]

    def __str__(self) -> str:
        return repr(self)


def _named_constraints(table: str) -> tuple[sa.schema.SchemaItem, ...]:
    return (
        PrimaryKeyConstraint("id", name=f"pk_{table}"),
        UniqueConstraint("external_ref", name=f"uq_{table}_external_ref"),
        CheckConstraint("name <> ''", name=f"ck_{table}_name"),
        CheckConstraint("version > 0", name=f"ck_{table}_version"),
        # One for each order of the lists, so that a deep page costs what the first one costs.
        Index(f"ix_{table}_name_key_id", "name_key", "id"),
        Index(f"ix_{table}_created_at_id", "created_at", "id"),
        Index(f"ix_{table}_updated_at_id", "updated_at", "id"),
    )


# SQLite alone would give a deleted row's id to the next one; utf8mb4 and InnoDB may not be a server's default.
_TABLE_OPTIONS = {"sqlite_autoincrement": True, "mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
_TABLE_OPTIONS |= {"mariadb_engine": "InnoDB", "mariadb_charset": "utf8mb4"}


class User(_Table, _UserRow, table=True):
    """An owner of pets."""

    __table_args__ = (
        *_named_constraints("user"),
        UniqueConstraint("email", name="uq_user_email"),
        Index("ix_user_phone", "phone"),
        _TABLE_OPTIONS,
    )

    pets: list["Pet"] = Relationship(
        back_populates="owner", passive_deletes="all", sa_relationship_kwargs={"lazy": "raise"}
    )


class Pet(_Table, _PetRow, table=True):
    """An animal, with or without an owner. `weight_g` is in grams, `microchip` as in ISO 11784."""

    __table_args__ = (
        *_named_constraints("pet"),
        UniqueConstraint("microchip", name="uq_pet_microchip"),
        ForeignKeyConstraint(["owner_id"], ["user.id"], name="fk_pet_owner_id_user", ondelete="RESTRICT"),
        CheckConstraint("sex IN ('male', 'female', 'unknown')", name="ck_pet_sex"),
        CheckConstraint("status IN ('active', 'missing', 'deceased')", name="ck_pet_status"),
        CheckConstraint("weight_g > 0", name="ck_pet_weight_g"),
        CheckConstraint("birth_date IS NOT NULL OR NOT birth_date_estimated", name="ck_pet_birth_date_estimated"),
        CheckConstraint("deceased_on IS NULL OR status = 'deceased'", name="ck_pet_deceased_on"),
        CheckConstraint("deceased_on >= birth_date", name="ck_pet_deceased_on_birth_date"),
        CheckConstraint("acquired_on IS NULL OR owner_id IS NOT NULL", name="ck_pet_acquired_on"),
        Index("ix_pet_owner_id", "owner_id"),
        Index("ix_pet_species", "species"),
        _TABLE_OPTIONS,
    )

    owner: User | None = Relationship(back_populates="pets", sa_relationship_kwargs={"lazy": "raise"})


Row = TypeVar("Row", User, Pet)  # The row of a function that serves both tables.


def shown_values(row: SQLModel) -> dict[str, Any]:
    """Return what a row shows of itself, None for what is not loaded: to show a row must not touch the database."""
    loaded = {"id": next(iter(sa.inspect(row, raiseerr=True).identity or ()), None), **row.__dict__}
    return {name: loaded.get(name) for name in type(row).model_fields if name not in _Bookkeeping.model_fields}


def _forget_acquisition(mapper: object, connection: object, pet: Pet) -> None:
    # The day belongs to the owner: who gives the pet another one, and no day, does not mean the old day.
    changed = {name: sa.inspect(pet).attrs[name].history.has_changes() for name in ("owner_id", "acquired_on")}
    if changed["owner_id"] and not changed["acquired_on"]:
        pet.acquired_on = None


TABLES = (str(User.__tablename__), str(Pet.__tablename__))

sa.event.listen(Pet, "before_update", _forget_acquisition)
for _table in TABLES:
    sa.event.listen(SQLModel.metadata.tables[_table], "before_create", order_unique_constraints)
validate_on_flush(_UserRow, User)
validate_on_flush(_PetRow, Pet)
