"""Executions that advance by set: timers, attempts.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_EXECUTIONS = sa.table(
    "executions", sa.column("state", sa.String), sa.column("due_at", _TIME), sa.column("id")
)
_WITH_TIMER = (
    "OFFERED",
    "ACCEPTED",
    "DEFERRED",
    "DOWNLOADING",
    "VERIFIED",
    "STAGED",
    "SHADOWING",
    "ACTIVATING",
    "PROBATION",
    "UNKNOWN",
)
_GRACE = timedelta(minutes=15)
"""What was on its way gets so long from now on: devices come back after the server."""


def upgrade() -> None:
    with op.batch_alter_table("executions", recreate="never") as executions:
        executions.add_column(sa.Column("bytes_earlier", _BIG, nullable=False, server_default="0"))
        executions.add_column(
            sa.Column("retryable", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        executions.add_column(sa.Column("due_at", _TIME, nullable=True))
    op.execute(
        sa.update(_EXECUTIONS)
        .where(_EXECUTIONS.c.state.in_(_WITH_TIMER))
        .values(due_at=datetime.now(UTC) + _GRACE)
    )
    op.drop_index("ix_executions_rollout_wave", "executions")
    op.create_index("ix_executions_rollout_state", "executions", ["rollout_id", "wave", "state"])
    op.create_index(
        "ix_executions_due",
        "executions",
        ["rollout_id", "due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index("ix_devices_state", "devices", ["state", "presence"])


def downgrade() -> None:
    # Never by a new table: SQLite would not drop the old one, to which other rows may refer.
    op.drop_index("ix_devices_state", "devices")
    op.drop_index("ix_executions_due", "executions")
    op.drop_index("ix_executions_rollout_state", "executions")
    op.create_index("ix_executions_rollout_wave", "executions", ["rollout_id", "wave"])
    with op.batch_alter_table("executions", recreate="never") as executions:
        executions.drop_column("due_at")
        executions.drop_column("retryable")
        executions.drop_column("bytes_earlier")
