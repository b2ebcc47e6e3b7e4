"""Several models on one device; why a rollout is paused or over; plans made by portions.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_DEVICES = sa.table(
    "devices",
    sa.column("id", sa.String),
    sa.column("active", sa.JSON),
    sa.column("last_seen_at", _TIME),
    sa.column("enrolled_at", _TIME),
)
_KEYS = ("model", "version", "variant", "sha256")
_PORTION = 1_000


def upgrade() -> None:
    made = op.create_table(
        "device_models",
        sa.Column("device_id", sa.String(32), sa.ForeignKey("devices.id"), primary_key=True),
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("version", _BIG, nullable=False),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("since", _TIME, nullable=False),
    )
    op.create_index("ix_device_models_version", "device_models", ["model", "version", "device_id"])
    for rows in _devices():
        _rewrite(rows, _as_list)
        serving = [
            {
                "device_id": row.id,
                "since": row.last_seen_at or row.enrolled_at,
                **{key: one[key] for key in _KEYS},
            }
            for row in rows
            for one in _as_list(row.active)
        ]
        if serving:
            op.get_bind().execute(made.insert(), serving)
    with op.batch_alter_table("rollouts", recreate="never") as rollouts:
        rollouts.add_column(sa.Column("reason", sa.Text(), nullable=True))
        rollouts.add_column(
            sa.Column("planned", sa.Boolean(), nullable=False, server_default=sa.true())
        )


def downgrade() -> None:
    # Never by a new table: SQLite would not drop the old one, to which other rows may refer.
    with op.batch_alter_table("rollouts", recreate="never") as rollouts:
        rollouts.drop_column("planned")
        rollouts.drop_column("reason")
    # Of several models the first by name stays: the next birth says more, in either form.
    for rows in _devices():
        _rewrite(rows, lambda active: active[0] if active else None)
    op.drop_index("ix_device_models_version", "device_models")
    op.drop_table("device_models")


def _devices() -> Iterator[Sequence[Any]]:
    """All devices by portions, in the order of their ids."""
    after = ""
    while True:
        query = sa.select(_DEVICES).where(_DEVICES.c.id > after).order_by(_DEVICES.c.id)
        rows = op.get_bind().execute(query.limit(_PORTION)).all()
        if not rows:
            return
        yield rows
        after = rows[-1].id


def _rewrite(rows: Sequence[Any], form: Callable[[Any], Any]) -> None:
    named = sa.update(_DEVICES).where(_DEVICES.c.id == sa.bindparam("of"))
    statement = named.values(active=sa.bindparam("becomes", type_=sa.JSON))
    changed = [{"of": row.id, "becomes": form(row.active)} for row in rows]
    op.get_bind().execute(statement, changed)


def _as_list(active: Any) -> list[dict[str, Any]]:
    if isinstance(active, str):
        active = json.loads(active)
    return [] if active is None else active if isinstance(active, list) else [active]
