"""Registry: notes, tags, reasons, purged versions; files of versions; history of aliases.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_NAME = sa.String(length=64)
_TIME = tables.UtcDateTime(timezone=True)

_VERSIONS = sa.table(
    "model_versions",
    sa.column("model", sa.String),
    sa.column("version", sa.BigInteger),
    sa.column("manifest", sa.Text),
    sa.column("created_at", _TIME),
)
_FILES = sa.table(
    "version_files",
    sa.column("model", sa.String),
    sa.column("version", sa.BigInteger),
    sa.column("sha256", sa.String),
    sa.column("served", sa.Boolean),
)
_ALIASES = sa.table(
    "aliases",
    sa.column("model", sa.String),
    sa.column("alias", sa.String),
    sa.column("version", sa.BigInteger),
)
_CHANGES = sa.table(
    "alias_changes",
    sa.column("model", sa.String),
    sa.column("alias", sa.String),
    sa.column("version", sa.BigInteger),
    sa.column("by", sa.String),
    sa.column("at", _TIME),
)

_UNRECORDED = "unrecorded"
"""Who moved the aliases that there are already: nobody wrote it down."""


def upgrade() -> None:
    with op.batch_alter_table("model_versions", schema=None) as versions:
        versions.add_column(sa.Column("revoked_reason", sa.Text(), nullable=True))
        versions.add_column(
            sa.Column("purged", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        versions.add_column(sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))
        versions.add_column(sa.Column("note", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "version_files",
        sa.Column("model", _NAME, nullable=False),
        sa.Column("version", _INT, nullable=False),
        sa.Column("sha256", _NAME, nullable=False),
        sa.Column("served", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "version"], ["model_versions.model", "model_versions.version"]
        ),
        sa.PrimaryKeyConstraint("model", "version", "sha256"),
    )
    op.create_index("ix_version_files_sha256", "version_files", ["sha256"])
    op.create_table(
        "alias_changes",
        sa.Column("id", _INT, autoincrement=True, nullable=False),
        sa.Column("model", _NAME, nullable=False),
        sa.Column("alias", _NAME, nullable=False),
        sa.Column("version", _INT, nullable=True),
        sa.Column("before", _INT, nullable=True),
        sa.Column("by", _NAME, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_alias_changes_alias", "alias_changes", ["model", "alias", "id"])
    _list_files()
    _begin_history()


def _list_files() -> None:
    bind = op.get_bind()
    keys = bind.execute(sa.select(_VERSIONS.c.model, _VERSIONS.c.version)).all()
    for model, version in keys:
        # One by one: a manifest may have half a megabyte.
        where = (_VERSIONS.c.model == model, _VERSIONS.c.version == version)
        manifest = json.loads(bind.scalar(sa.select(_VERSIONS.c.manifest).where(*where)) or "{}")
        rows = [
            {"model": model, "version": version, "sha256": sha256, "served": served}
            for sha256, served in _files(manifest).items()
        ]
        if rows:
            bind.execute(_FILES.insert(), rows)


def _files(manifest: dict[str, Any]) -> dict[str, bool]:
    """Digests of what a manifest of that time names: devices fetch all of it but outcomes."""
    variants = manifest.get("variants", ())
    measured = [one for variant in variants for one in variant.get("accuracy", ())]
    found = {one["outcomes"]["sha256"]: False for one in measured if one.get("outcomes")}
    for variant in variants:
        found[variant["file"]["sha256"]] = True
        found[variant["golden"]["file"]["sha256"]] = True
    return found


def _begin_history() -> None:
    """An alias that is there begins its history with where it is."""
    same = sa.and_(_ALIASES.c.model == _VERSIONS.c.model, _ALIASES.c.version == _VERSIONS.c.version)
    there = sa.select(
        _ALIASES.c.model,
        _ALIASES.c.alias,
        _ALIASES.c.version,
        sa.literal(_UNRECORDED),
        _VERSIONS.c.created_at,
    ).select_from(_ALIASES.join(_VERSIONS, same))
    names = ["model", "alias", "version", "by", "at"]
    op.get_bind().execute(_CHANGES.insert().from_select(names, there))


def downgrade() -> None:
    op.drop_table("alias_changes")
    op.drop_table("version_files")
    # Never by a new table: SQLite would not drop the old one, to which other rows may refer.
    with op.batch_alter_table("model_versions", recreate="never") as versions:
        for name in ("note", "tags", "purged", "revoked_reason"):
            versions.drop_column(name)
