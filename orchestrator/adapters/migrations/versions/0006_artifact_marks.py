"""Marks on artifacts that are held or condemned; when a purged version's files came back.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "artifact_marks",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=32), nullable=False),
        sa.Column("condemned", sa.Boolean(), nullable=False),
        sa.Column("until", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("sha256", "owner"),
    )
    op.create_index("ix_artifact_marks_owner", "artifact_marks", ["owner"])
    op.create_index("ix_artifact_marks_until", "artifact_marks", ["until"])
    op.add_column("model_versions", sa.Column("restored_at", _TIME, nullable=True))


def downgrade() -> None:
    # Never by a new table: SQLite would not drop the old one, to which other rows may refer.
    with op.batch_alter_table("model_versions", recreate="never") as versions:
        versions.drop_column("restored_at")
    op.drop_table("artifact_marks")
