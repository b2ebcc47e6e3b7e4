"""Rollouts that judge themselves: control.

Of executions that were offered before, nobody knows what their devices served then: a rollback of
them has to name a version.

Revision ID: 0019
Revises: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)
_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TAKE_BACK = sa.text("take_back")
_ROLLOUTS = (
    ("requested_by", sa.String(length=100)),
    ("approved_by", sa.String(length=100)),
    ("rollback_of", sa.String(length=32)),
    ("takes_back", _INT),
    ("back_to", _INT),
    ("turned_at", _TIME),
    ("promoted_by", sa.String(length=100)),
)


def upgrade() -> None:
    with op.batch_alter_table("rollouts", recreate="never") as rollouts:
        for name, kind in _ROLLOUTS:
            rollouts.add_column(sa.Column(name, kind, nullable=True))
    op.create_index("ix_rollouts_rollback_of", "rollouts", ["rollback_of"])
    with op.batch_alter_table("waves", recreate="never") as waves:
        waves.add_column(sa.Column("promoted_by", sa.String(length=100), nullable=True))
    with op.batch_alter_table("executions", recreate="never") as executions:
        executions.add_column(sa.Column("before_version", _INT, nullable=True))
        executions.add_column(sa.Column("before_variant", sa.String(length=64), nullable=True))
    with op.batch_alter_table("model_versions", recreate="never") as versions:
        versions.add_column(
            sa.Column("take_back", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        versions.add_column(sa.Column("take_back_to", _INT, nullable=True))
    op.create_index(
        "ix_model_versions_take_back",
        "model_versions",
        ["model", "version"],
        sqlite_where=_TAKE_BACK,
        postgresql_where=_TAKE_BACK,
    )


def downgrade() -> None:
    op.drop_index("ix_model_versions_take_back", "model_versions")
    # Never by a new table: SQLite would not drop the old one, to which other rows may refer.
    with op.batch_alter_table("model_versions", recreate="never") as versions:
        versions.drop_column("take_back_to")
        versions.drop_column("take_back")
    with op.batch_alter_table("executions", recreate="never") as executions:
        executions.drop_column("before_variant")
        executions.drop_column("before_version")
    with op.batch_alter_table("waves", recreate="never") as waves:
        waves.drop_column("promoted_by")
    op.drop_index("ix_rollouts_rollback_of", "rollouts")
    with op.batch_alter_table("rollouts", recreate="never") as rollouts:
        for name, _ in reversed(_ROLLOUTS):
            rollouts.drop_column(name)
