"""Rollouts that judge themselves: verdicts.

Waves that are being judged begin with their first look.

Revision ID: 0018
Revises: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)
_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_LATE = sa.text("late IS NOT NULL")


def upgrade() -> None:
    op.add_column("waves", sa.Column("looks", _INT, nullable=False, server_default="0"))
    op.add_column("waves", sa.Column("looked_at", _TIME, nullable=True))
    op.create_index(
        "ix_executions_late",
        "executions",
        ["rollout_id", "wave"],
        sqlite_where=_LATE,
        postgresql_where=_LATE,
    )
    op.create_index("ix_windows_device", "windows", ["device_id", "start_ms"])


def downgrade() -> None:
    op.drop_index("ix_windows_device", table_name="windows")
    op.drop_index("ix_executions_late", table_name="executions")
    # Never by a new table: SQLite would not drop the old one, to which other rows may refer.
    with op.batch_alter_table("waves", recreate="never") as waves:
        waves.drop_column("looked_at")
        waves.drop_column("looks")
