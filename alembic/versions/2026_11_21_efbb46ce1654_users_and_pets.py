"""Users and pets.

Revision ID: efbb46ce1654
Revises:
Create Date: 2026-11-21 07:07:44.031962
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from sqlmodel_alembic_async import columns, schema

revision: str = "efbb46ce1654"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OPTIONS = {
    "mariadb_charset": "utf8mb4",
    "mariadb_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_engine": "InnoDB",
    "sqlite_autoincrement": True,
}

METADATA = sa.MetaData()

TABLES = (
    sa.Table(
        "user",
        METADATA,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", columns.Text(100), nullable=False),
        sa.Column("email", columns.Text(254), nullable=True),
        sa.Column("phone", columns.Text(32), nullable=True),
        sa.Column("address", columns.Text(255), nullable=True),
        sa.Column("city", columns.Text(80), nullable=True),
        sa.Column("postal_code", columns.Text(16), nullable=True),
        sa.Column("notes", columns.Text(), nullable=True),
        sa.Column("external_ref", columns.Text(64), nullable=True),
        sa.Column("archived_at", columns.UTCDateTime(), nullable=True),
        sa.Column("created_at", columns.UTCDateTime(), nullable=False),
        sa.Column("updated_at", columns.UTCDateTime(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("name_key", columns.Text(300), nullable=False),
        sa.CheckConstraint("name <> ''", name="ck_user_name"),
        sa.CheckConstraint("version > 0", name="ck_user_version"),
        sa.PrimaryKeyConstraint("id", name="pk_user"),
        sa.UniqueConstraint("email", name="uq_user_email"),
        sa.UniqueConstraint("external_ref", name="uq_user_external_ref"),
        sa.Index("ix_user_created_at_id", "created_at", "id"),
        sa.Index("ix_user_name_key_id", "name_key", "id"),
        sa.Index("ix_user_phone", "phone"),
        sa.Index("ix_user_updated_at_id", "updated_at", "id"),
        **OPTIONS,
    ),
    sa.Table(
        "pet",
        METADATA,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", columns.Text(100), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=True),
        sa.Column("species", columns.Text(50), nullable=True),
        sa.Column("breed", columns.Text(100), nullable=True),
        sa.Column("color", columns.Text(50), nullable=True),
        sa.Column("sex", columns.Text(7), nullable=False),
        sa.Column("neutered", sa.Boolean(), nullable=True),
        sa.Column("birth_date", sa.Date(), nullable=True),
        sa.Column("birth_date_estimated", sa.Boolean(), nullable=False),
        sa.Column("weight_g", sa.Integer(), nullable=True),
        sa.Column("microchip", columns.Text(15), nullable=True),
        sa.Column("status", columns.Text(8), nullable=False),
        sa.Column("deceased_on", sa.Date(), nullable=True),
        sa.Column("acquired_on", sa.Date(), nullable=True),
        sa.Column("notes", columns.Text(), nullable=True),
        sa.Column("external_ref", columns.Text(64), nullable=True),
        sa.Column("archived_at", columns.UTCDateTime(), nullable=True),
        sa.Column("created_at", columns.UTCDateTime(), nullable=False),
        sa.Column("updated_at", columns.UTCDateTime(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("name_key", columns.Text(300), nullable=False),
        sa.CheckConstraint("deceased_on IS NULL OR status = 'deceased'", name="ck_pet_deceased_on"),
        sa.CheckConstraint("name <> ''", name="ck_pet_name"),
        sa.CheckConstraint("sex IN ('male', 'female', 'unknown')", name="ck_pet_sex"),
        sa.CheckConstraint("status IN ('active', 'missing', 'deceased')", name="ck_pet_status"),
        sa.CheckConstraint("acquired_on IS NULL OR owner_id IS NOT NULL", name="ck_pet_acquired_on"),
        sa.CheckConstraint("birth_date IS NOT NULL OR NOT birth_date_estimated", name="ck_pet_birth_date_estimated"),
        sa.CheckConstraint("deceased_on >= birth_date", name="ck_pet_deceased_on_birth_date"),
        sa.CheckConstraint("version > 0", name="ck_pet_version"),
        sa.CheckConstraint("weight_g > 0", name="ck_pet_weight_g"),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name="fk_pet_owner_id_user", ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id", name="pk_pet"),
        sa.UniqueConstraint("external_ref", name="uq_pet_external_ref"),
        sa.UniqueConstraint("microchip", name="uq_pet_microchip"),
        sa.Index("ix_pet_created_at_id", "created_at", "id"),
        sa.Index("ix_pet_name_key_id", "name_key", "id"),
        sa.Index("ix_pet_owner_id", "owner_id"),
        sa.Index("ix_pet_species", "species"),
        sa.Index("ix_pet_updated_at_id", "updated_at", "id"),
        **OPTIONS,
    ),
)


def upgrade() -> None:
    """Bring the tables to this revision."""
    schema.create(op.get_bind(), TABLES)


def downgrade() -> None:
    """Take the tables back to the revision before."""
    schema.drop(op.get_bind(), TABLES)
