"""Jobs: the key of their submission; their CPU-seconds in a column, to be added up.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_JOBS = sa.table(
    "jobs",
    sa.column("id", sa.String),
    sa.column("usage", sa.Text),
    sa.column("cpu_seconds", sa.Double),
)


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as jobs:
        jobs.add_column(sa.Column("submission", sa.String(length=64), nullable=True))
        jobs.add_column(sa.Column("cpu_seconds", sa.Double(), nullable=False, server_default="0"))
        jobs.create_index("ux_jobs_submission", ["submission"], unique=True)
    bind = op.get_bind()
    used = sa.select(_JOBS.c.id, sa.cast(_JOBS.c.usage, sa.Text).label("usage"))
    for job, usage in bind.execute(used).all():
        seconds = sum(float(one.get("cpu_seconds", 0.0)) for one in json.loads(usage).values())
        if seconds:
            bind.execute(_JOBS.update().where(_JOBS.c.id == job).values(cpu_seconds=seconds))


def downgrade() -> None:
    # Never by a new table: SQLite would not drop the old one, to which other rows refer.
    with op.batch_alter_table("jobs", recreate="never") as jobs:
        jobs.drop_index("ux_jobs_submission")
        jobs.drop_column("cpu_seconds")
        jobs.drop_column("submission")
