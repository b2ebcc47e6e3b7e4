"""What devices serve beside what they should: drift, rollback by hand; what is to be sent.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)
_UNSENT = sa.text("NOT published AND sequence > 0")


def upgrade() -> None:
    with op.batch_alter_table("devices", recreate="never") as devices:
        devices.add_column(sa.Column("drifted_at", _TIME, nullable=True))
        devices.add_column(
            sa.Column("rolled_back", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    op.drop_index("ix_executions_unpublished", "executions")
    _index("ix_executions_outbox", ["rollout_id", "state", "id"])


def downgrade() -> None:
    op.drop_index("ix_executions_outbox", "executions")
    _index("ix_executions_unpublished", ["id"])
    # Never by a new table: SQLite would not drop the old one, to which other rows may refer.
    with op.batch_alter_table("devices", recreate="never") as devices:
        devices.drop_column("rolled_back")
        devices.drop_column("drifted_at")


def _index(name: str, columns: list[str]) -> None:
    op.create_index(name, "executions", columns, sqlite_where=_UNSENT, postgresql_where=_UNSENT)
