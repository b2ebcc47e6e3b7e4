"""People's tokens with names and scopes, sessions of the page, the audit log.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("api_keys", recreate="never") as keys:
        keys.add_column(sa.Column("name", sa.String(64), nullable=False, server_default=""))
        keys.add_column(sa.Column("scopes", sa.JSON(), nullable=True))
        keys.add_column(sa.Column("last_used_at", _TIME, nullable=True))
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_sessions_key_id", "sessions", ["key_id"])
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor", sa.String(length=100), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )


def downgrade() -> None:
    op.drop_table("audit")
    op.drop_table("sessions")
    # Never by a new table: SQLite would not drop the old one, to which other rows may refer.
    with op.batch_alter_table("api_keys", recreate="never") as keys:
        keys.drop_column("last_used_at")
        keys.drop_column("scopes")
        keys.drop_column("name")
