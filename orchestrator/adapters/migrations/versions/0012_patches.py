"""Patches between files of versions.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "patches",
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("base", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("leaves_sha256", sa.String(length=64), nullable=True),
        sa.Column("size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("made_at", _TIME, nullable=True),
        sa.Column("offered_at", _TIME, nullable=False),
        sa.Column("owner", sa.String(length=32), nullable=True),
        sa.Column("until", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("target", "base"),
    )
    op.create_index("ix_patches_sha256", "patches", ["sha256"])


def downgrade() -> None:
    op.drop_table("patches")
