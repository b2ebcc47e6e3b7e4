"""Planning: the selector of a fleet as a plan froze it, and waves of devices that joined later.

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; rollouts and waves that are there have neither."""
    op.add_column("rollouts", sa.Column("fleet_where", sa.Text(), nullable=True))
    op.add_column(
        "waves", sa.Column("joiners", sa.Boolean(), nullable=False, server_default=sa.false())
    )


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("waves", "joiners")
    op.drop_column("rollouts", "fleet_where")
