"""Rollouts that judge themselves: pace.

Rollouts that are there begin at revision 1; nothing of them was activated or waits for a word.

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)
_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_OFFERED = sa.text("offered_at IS NOT NULL")


def upgrade() -> None:
    with op.batch_alter_table("rollouts", recreate="never") as rollouts:
        rollouts.add_column(sa.Column("revision", _INT, nullable=False, server_default="1"))
        rollouts.add_column(sa.Column("activated_at", _TIME, nullable=True))
    with op.batch_alter_table("executions", recreate="never") as executions:
        executions.add_column(sa.Column("waits_until", _TIME, nullable=True))
        executions.add_column(
            sa.Column("proceed", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    op.create_index("ix_devices_presence", "devices", ["presence", "id"])
    op.create_index(
        "ix_executions_offered",
        "executions",
        ["rollout_id", "offered_at"],
        sqlite_where=_OFFERED,
        postgresql_where=_OFFERED,
    )


def downgrade() -> None:
    op.drop_index("ix_executions_offered", "executions")
    op.drop_index("ix_devices_presence", "devices")
    # Never by a new table: SQLite would not drop the old one, to which other rows may refer.
    with op.batch_alter_table("executions", recreate="never") as executions:
        executions.drop_column("proceed")
        executions.drop_column("waits_until")
    with op.batch_alter_table("rollouts", recreate="never") as rollouts:
        rollouts.drop_column("activated_at")
        rollouts.drop_column("revision")
