"""Rollouts that judge themselves: experiments.

Revision ID: 0020
Revises: 0019
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "experiments",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("rollout_a", sa.String(length=32), nullable=False),
        sa.Column("rollout_b", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("kept", sa.String(length=1), nullable=True),
        sa.Column("kept_rollout", sa.String(length=32), nullable=True),
        sa.Column("differences", sa.JSON(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("requested_by", sa.String(length=100), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["rollout_a"], ["rollouts.id"]),
        sa.ForeignKeyConstraint(["rollout_b"], ["rollouts.id"]),
        sa.ForeignKeyConstraint(["kept_rollout"], ["rollouts.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_experiments_state", "experiments", ["state"])


def downgrade() -> None:
    op.drop_index("ix_experiments_state", table_name="experiments")
    op.drop_table("experiments")
