"""Jobs: projects, priorities, back-off, live figures, sweeps, usage; agents; profiles.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _metrics(*key: sa.Column[int]) -> tuple[sa.schema.SchemaItem, ...]:
    """The columns of job_metrics; ``key``: what is between the job and the epoch."""
    names = [column.name for column in key]
    return (
        sa.Column("job_id", sa.String(length=32), nullable=False),
        *key,
        sa.Column("epoch", _INT, nullable=False),
        sa.Column("at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id", *names, "epoch"),
    )


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as jobs:
        jobs.add_column(
            sa.Column("project", sa.String(length=64), nullable=False, server_default="default")
        )
        jobs.add_column(sa.Column("priority", _INT, nullable=False, server_default="0"))
        jobs.add_column(sa.Column("not_before", tables.UtcDateTime(timezone=True), nullable=True))
        jobs.add_column(sa.Column("notice", sa.Text(), nullable=True))
        jobs.add_column(sa.Column("live", sa.JSON(), nullable=True))
        jobs.add_column(sa.Column("trials", sa.JSON(), nullable=False, server_default="[]"))
        jobs.add_column(sa.Column("usage", sa.JSON(), nullable=False, server_default="{}"))
        jobs.add_column(sa.Column("problems", sa.JSON(), nullable=False, server_default="[]"))
        jobs.create_index("ix_jobs_ended_at", ["ended_at"])
    op.create_table(
        "agents",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("capacity", sa.JSON(), nullable=True),
        sa.Column("seen_at", tables.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "job_profiles",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("profile", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_table(
        "job_log_totals",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("lines", _INT, nullable=False),
        sa.Column("size", _INT, nullable=False),
        sa.Column("dropped", _INT, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.drop_index("ix_job_logs_job_id", table_name="job_logs")
    op.create_index("ix_job_logs_job", "job_logs", ["job_id", "id"])
    if op.get_bind().dialect.name == "sqlite":
        # Only so does SQLite never give the number of a deleted row again.
        numbered = {"sqlite_autoincrement": True}
        with op.batch_alter_table("events", recreate="always", table_kwargs=numbered):
            pass
    op.create_index(
        "ux_events_live",
        "events",
        ["subject"],
        unique=True,
        sqlite_where=sa.text("kind = 'live'"),
        postgresql_where=sa.text("kind = 'live'"),
    )
    # A primary key is changed by making the table anew, on every database the same way.
    op.rename_table("job_metrics", "job_metrics_old")
    op.create_table("job_metrics", *_metrics(sa.Column("trial", _INT, nullable=False)))
    op.execute(
        'INSERT INTO job_metrics (job_id, trial, epoch, at, "values") '
        'SELECT job_id, 0, epoch, at, "values" FROM job_metrics_old'
    )
    op.drop_table("job_metrics_old")


def downgrade() -> None:
    op.rename_table("job_metrics", "job_metrics_new")
    op.create_table("job_metrics", *_metrics())
    op.execute(
        'INSERT INTO job_metrics (job_id, epoch, at, "values") '
        'SELECT job_id, epoch, at, "values" FROM job_metrics_new WHERE trial = 0'
    )
    op.drop_table("job_metrics_new")
    op.execute("DELETE FROM events WHERE kind = 'live'")
    op.drop_index("ux_events_live", table_name="events")
    op.drop_index("ix_job_logs_job", table_name="job_logs")
    op.create_index("ix_job_logs_job_id", "job_logs", ["job_id"])
    op.drop_table("job_log_totals")
    op.drop_table("job_profiles")
    op.drop_table("agents")
    # Never by a new table: SQLite would not drop the old one, to which other rows refer.
    with op.batch_alter_table("jobs", recreate="never") as jobs:
        jobs.drop_index("ix_jobs_ended_at")
        for name in (
            "problems",
            "usage",
            "trials",
            "live",
            "notice",
            "not_before",
            "priority",
            "project",
        ):
            jobs.drop_column(name)
