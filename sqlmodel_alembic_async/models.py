"""The tables User and Pet."""

from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, PrimaryKeyConstraint, UniqueConstraint
from sqlalchemy.orm import declared_attr, relationship
from sqlmodel import Relationship, SQLModel

from .row_validation import is_as_a_service_wrote_it, validate_on_flush
from .schema import order_unique_constraints
from .shapes import Bookkeeping, PetRow, UserRow, WithPlainSignature, mark_as_built
from .shapes import PetCreate as PetCreate
from .shapes import PetUpdate as PetUpdate
from .shapes import UserCreate as UserCreate
from .shapes import UserUpdate as UserUpdate
from .shapes import check_agreement as check_agreement
from .unloaded import explain_unloaded


class _Table(WithPlainSignature):
    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        mark_as_built(cls)

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
        # One for each order of the lists.
        Index(f"ix_{table}_name_key_id", "name_key", "id"),
        Index(f"ix_{table}_created_at_id", "created_at", "id"),
        Index(f"ix_{table}_updated_at_id", "updated_at", "id"),
    )


# SQLite alone would give a deleted row's id to the next one; utf8mb4 and InnoDB may not be a server's default.
_TABLE_OPTIONS = {"sqlite_autoincrement": True, "mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
_TABLE_OPTIONS |= {"mariadb_engine": "InnoDB", "mariadb_charset": "utf8mb4"}


class User(_Table, UserRow, table=True):
    """An owner of pets."""

    __table_args__ = (
        *_named_constraints("user"),
        UniqueConstraint("email", name="uq_user_email"),
        Index("ix_user_phone", "phone"),
        _TABLE_OPTIONS,
    )

    pets: list["Pet"] = Relationship(
        # With its module: a host application may have a class of the same name.
        sa_relationship=relationship(f"{__name__}.Pet", back_populates="owner", passive_deletes="all", lazy="raise")
    )


class Pet(_Table, PetRow, table=True):
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


Row = TypeVar("Row", User, Pet)


def shown_values(row: SQLModel) -> dict[str, Any]:
    """Return the fields that the repr of a row shows, None for those that are not loaded; send no SQL."""
    loaded = {"id": next(iter(sa.inspect(row, raiseerr=True).identity or ()), None), **row.__dict__}
    return {name: loaded.get(name) for name in type(row).model_fields if name not in Bookkeeping.model_fields}


def _forget_acquisition(mapper: object, connection: object, pet: Pet) -> None:
    """Clear acquired_on if only the owner changed: the stored day is the previous owner's."""
    changed = {name: sa.inspect(pet).attrs[name].history.has_changes() for name in ("owner_id", "acquired_on")}
    if changed["owner_id"] and not changed["acquired_on"] and not is_as_a_service_wrote_it(pet):
        pet.acquired_on = None


TABLES = (str(User.__tablename__), str(Pet.__tablename__))

sa.event.listen(Pet, "before_update", _forget_acquisition)
for _table in TABLES:
    sa.event.listen(SQLModel.metadata.tables[_table], "before_create", order_unique_constraints)
validate_on_flush(UserRow, User)
validate_on_flush(PetRow, Pet)
explain_unloaded(User, pets=" or `get_user(session, user_id, with_pets=True)`")
explain_unloaded(Pet, owner=" or `get_pet(session, pet_id, with_owner=True)`")
