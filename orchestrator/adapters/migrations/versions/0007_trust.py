"""Manifests are signed in the trust metadata, no longer beside each version.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_STANDING = ["revoked", "purged", "model", "version", "manifest_sha256", "manifest_size"]


def upgrade() -> None:
    op.add_column(
        "model_versions", sa.Column("manifest_size", _INT, nullable=False, server_default="0")
    )
    # Bytes, not characters: that is what a device is told to expect.
    length = (
        "octet_length(manifest)"
        if op.get_bind().dialect.name == "postgresql"
        else "length(CAST(manifest AS BLOB))"
    )
    op.execute(f"UPDATE model_versions SET manifest_size = {length}")  # noqa: S608 - our own text
    _drop("signed")
    op.create_index("ix_model_versions_standing", "model_versions", _STANDING)


def downgrade() -> None:
    # The signatures are gone: the older program signs nothing again, so devices get no
    # version that was registered before. Its new versions work.
    op.drop_index("ix_model_versions_standing", "model_versions")
    op.add_column(
        "model_versions", sa.Column("signed", sa.Text(), nullable=False, server_default="")
    )
    _drop("manifest_size")


def _drop(column: str) -> None:
    # Never by a new table: SQLite would not drop the old one, to which other rows may refer.
    with op.batch_alter_table("model_versions", recreate="never") as versions:
        versions.drop_column(column)
