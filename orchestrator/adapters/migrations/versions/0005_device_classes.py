"""Classes of devices; what devices measured of variants.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "device_classes",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "measured",
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("batch", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("benchmark", sa.JSON(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("device_id", "sha256", "batch"),
    )
    op.create_index("ix_measured_sha256", "measured", ["sha256"])


def downgrade() -> None:
    op.drop_table("measured")
    op.drop_table("device_classes")
