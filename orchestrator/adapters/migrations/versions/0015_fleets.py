"""Rollouts that judge themselves: fleets, and devices that can be asked for by tag and version.

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables
from schemas.selector_fields import version_key

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TIME = tables.UtcDateTime(timezone=True)
_PORTION = 1000
_UNREADABLE = re.compile("[\x00\ud800-\udfff]")


def upgrade() -> None:
    op.create_table(
        "fleets",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "device_tags",
        sa.Column("tag", sa.String(length=64), nullable=False),
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("tag", "device_id"),
    )
    op.create_index("ix_device_tags_device_id", "device_tags", ["device_id"])
    op.add_column("devices", sa.Column("ort_key", sa.String(length=64), nullable=True))
    op.add_column("devices", sa.Column("agent_key", sa.String(length=64), nullable=True))
    _fill()


def downgrade() -> None:
    # Never by a new table: SQLite would not drop the old one, to which other rows may refer.
    with op.batch_alter_table("devices", recreate="never") as devices:
        devices.drop_column("agent_key")
        devices.drop_column("ort_key")
    op.drop_index("ix_device_tags_device_id", table_name="device_tags")
    op.drop_table("device_tags")
    op.drop_table("fleets")


def _fill() -> None:
    """Take over what devices are and told."""
    connection = op.get_bind()
    devices = sa.table(
        "devices",
        sa.column("id", sa.String),
        sa.column("tags", sa.JSON),
        sa.column("hardware", sa.JSON),
        sa.column("ort_key", sa.String),
        sa.column("agent_key", sa.String),
    )
    tags = sa.table("device_tags", sa.column("tag", sa.String), sa.column("device_id", sa.String))
    change = sa.update(devices).where(devices.c.id == sa.bindparam("its_id"))
    for rows in _portions(connection, devices):
        fresh = [
            {"tag": tag, "device_id": row.id} for row in rows for tag in dict.fromkeys(row.tags)
        ]
        if fresh:
            connection.execute(sa.insert(tags), fresh)
        told = [
            {
                "its_id": row.id,
                "hardware": _readable(row.hardware),
                "ort_key": version_key(row.hardware.get("ort")),
                "agent_key": version_key(row.hardware.get("agent")),
            }
            for row in rows
            if row.hardware
        ]
        if told:
            names = ("hardware", "ort_key", "agent_key")
            values = {name: sa.bindparam(name, type_=devices.c[name].type) for name in names}
            connection.execute(change.values(values), told)


def _portions(connection: sa.Connection, devices: Any) -> Iterator[Any]:
    query = sa.select(devices.c.id, devices.c.tags, devices.c.hardware).order_by(devices.c.id)
    last = ""
    while rows := connection.execute(query.where(devices.c.id > last).limit(_PORTION)).all():
        yield rows
        last = rows[-1].id


def _readable(value: Any) -> Any:
    """Without characters that PostgreSQL refuses to read out of JSON."""
    if isinstance(value, str):
        return _UNREADABLE.sub("", value)
    if isinstance(value, list):
        return [_readable(one) for one in value]
    if isinstance(value, dict):
        return {key: _readable(one) for key, one in value.items()}
    return value
