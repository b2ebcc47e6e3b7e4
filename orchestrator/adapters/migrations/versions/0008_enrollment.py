"""Enrollment: what join tokens allow, keys and certificates of devices, alerts.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.adapters import tables

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.String(length=32)
_DIGEST = sa.String(length=64)
_TIME = tables.UtcDateTime(timezone=True)

_DEVICES = sa.table(
    "devices",
    sa.column("id", sa.String),
    sa.column("token_id", sa.String),
    sa.column("certificate_serial", sa.String),
    sa.column("certificate_expires_at", _TIME),
    sa.column("spki_sha256", sa.String),
    sa.column("state", sa.String),
    sa.column("enrolled_at", _TIME),
)
_KEYS = sa.table(
    "device_keys",
    *(sa.column(name, sa.String) for name in ("spki_sha256", "device_id", "token_id")),
    sa.column("at", _TIME),
)
_CERTIFICATES = sa.table(
    "certificates",
    *(
        sa.column(name, sa.String)
        for name in ("serial", "device_id", "spki_sha256", "csr_sha256", "root_sha256", "pem")
    ),
    sa.column("issued_at", _TIME),
    sa.column("expires_at", _TIME),
)


def upgrade() -> None:
    with op.batch_alter_table("join_tokens", recreate="never") as tokens:
        tokens.add_column(
            sa.Column("approval", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        tokens.add_column(sa.Column("keys", sa.JSON(), nullable=False, server_default="[]"))
        tokens.add_column(sa.Column("device_id", _ID, nullable=True))
        tokens.add_column(sa.Column("note", sa.Text(), nullable=False, server_default=""))
    _create_tables()
    _keep_what_was_issued()
    with op.batch_alter_table("devices", recreate="never") as devices:
        devices.drop_column("certificate_serial")
        devices.drop_column("certificate_expires_at")
        devices.add_column(sa.Column("certificate_serial", _DIGEST, nullable=True))
        devices.add_column(sa.Column("certificate_expires_at", _TIME, nullable=True))
        devices.add_column(sa.Column("seen_certificate", sa.JSON(), nullable=True))
        devices.add_column(sa.Column("turns", sa.JSON(), nullable=False, server_default="[]"))
        devices.add_column(sa.Column("clone_suspected_at", _TIME, nullable=True))
        devices.add_column(sa.Column("revoked_at", _TIME, nullable=True))
        devices.add_column(sa.Column("revoke_reason", sa.Text(), nullable=False, server_default=""))
    _fill_in()


def _create_tables() -> None:
    op.create_table(
        "device_keys",
        sa.Column("spki_sha256", _DIGEST, nullable=False),
        sa.Column("device_id", _ID, nullable=False),
        sa.Column("token_id", _ID, nullable=True),
        sa.Column("at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("spki_sha256"),
    )
    op.create_table(
        "certificates",
        sa.Column("serial", _DIGEST, nullable=False),
        sa.Column("device_id", _ID, nullable=False),
        sa.Column("spki_sha256", _DIGEST, nullable=False),
        sa.Column("csr_sha256", _DIGEST, nullable=False),
        sa.Column("root_sha256", _DIGEST, nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("issued_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("seen_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index("ix_certificates_device", "certificates", ["device_id", "issued_at"])
    op.create_index("ix_certificates_expires_at", "certificates", ["expires_at"])
    op.create_table(
        "revoked_certificates",
        sa.Column("serial", _DIGEST, nullable=False),
        sa.Column("device_id", _ID, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index("ix_revoked_certificates_device_id", "revoked_certificates", ["device_id"])
    op.create_index("ix_revoked_certificates_expires_at", "revoked_certificates", ["expires_at"])


def _keep_what_was_issued() -> None:
    """Of the certificates until now neither the text nor the request was kept."""
    bind = op.get_bind()
    key = _DEVICES.c.spki_sha256
    # Two devices may have come with one key before; the older one keeps it.
    first = sa.select(sa.func.min(_DEVICES.c.id)).group_by(key)
    keys = sa.select(key, _DEVICES.c.id, _DEVICES.c.token_id, _DEVICES.c.enrolled_at)
    names = ["spki_sha256", "device_id", "token_id", "at"]
    bind.execute(_KEYS.insert().from_select(names, keys.where(_DEVICES.c.id.in_(first))))
    names = ["serial", "device_id", "spki_sha256", "csr_sha256", "root_sha256", "pem"]
    nothing = sa.literal("")
    issued = sa.select(
        *(_DEVICES.c.certificate_serial, _DEVICES.c.id, key, nothing, nothing, nothing),
        *(_DEVICES.c.enrolled_at, _DEVICES.c.certificate_expires_at),
    )
    bind.execute(_CERTIFICATES.insert().from_select([*names, "issued_at", "expires_at"], issued))


def _fill_in() -> None:
    """Give each device the serial and the expiry of its newest certificate."""

    def newest(column: sa.ColumnClause[object]) -> sa.ScalarSelect[object]:
        own = _CERTIFICATES.c.device_id == _DEVICES.c.id
        one = sa.select(column).where(own).order_by(_CERTIFICATES.c.issued_at.desc())
        return one.limit(1).scalar_subquery()

    there = sa.select(_CERTIFICATES.c.device_id)
    op.get_bind().execute(
        _DEVICES.update()
        .where(_DEVICES.c.id.in_(there))
        .values(
            certificate_serial=newest(_CERTIFICATES.c.serial),
            certificate_expires_at=newest(_CERTIFICATES.c.expires_at),
        )
    )


def downgrade() -> None:
    bind = op.get_bind()
    # Before, every device had a certificate: one that has none yet cannot be told of.
    pending = sa.select(_DEVICES.c.id).where(_DEVICES.c.certificate_serial.is_(None))
    bind.execute(_KEYS.delete().where(_KEYS.c.device_id.in_(pending)))
    bind.execute(_DEVICES.delete().where(_DEVICES.c.certificate_serial.is_(None)))
    # Never by a new table: SQLite would not drop the old one, to which other rows may refer.
    with op.batch_alter_table("devices", recreate="never") as devices:
        for name in (
            *("revoke_reason", "revoked_at", "clone_suspected_at", "turns", "seen_certificate"),
            *("certificate_serial", "certificate_expires_at"),
        ):
            devices.drop_column(name)
        devices.add_column(
            sa.Column("certificate_serial", _DIGEST, nullable=False, server_default="")
        )
        devices.add_column(
            sa.Column(
                "certificate_expires_at",
                _TIME,
                nullable=False,
                server_default="1970-01-01 00:00:00+00:00",
            )
        )
    _fill_in()
    op.drop_table("revoked_certificates")
    op.drop_table("certificates")
    op.drop_table("device_keys")
    with op.batch_alter_table("join_tokens", recreate="never") as tokens:
        for name in ("note", "device_id", "keys", "approval"):
            tokens.drop_column(name)
