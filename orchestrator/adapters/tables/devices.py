"""Tables of devices, their join tokens, their classes and what they measured."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.adapters.tables.base import Base


class JoinTokenRow(Base):
    """A join token; of its secret only the hash is kept.

    ``keys``: SHA-256 of the public keys that may use it. ``device_id``: whose place it gives.
    """

    __tablename__ = "join_tokens"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    device_class: Mapped[str] = mapped_column(String(64))
    tags: Mapped[list[Any]]
    max_uses: Mapped[int]
    uses: Mapped[int] = mapped_column(default=0)
    revoked: Mapped[bool] = mapped_column(default=False)
    approval: Mapped[bool] = mapped_column(default=False)
    keys: Mapped[list[Any]]
    device_id: Mapped[str | None] = mapped_column(String(32))
    note: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime]


class DeviceRow(Base):
    """A device. ``sequence`` is that of the last assignment signed for it.

    ``certificate_serial`` is of the one issued last, ``seen_certificate`` what the last birth
    said; ``turns`` are the boots that its births told of lately (``domain.clone``).
    ``drifted_at``: since when it serves what it was never given. ``active``: a list, by model.
    ``ort_key``, ``agent_key``: versions of ``hardware``, as text that sorts as they do
    (``schemas.selector_fields``).
    """

    __tablename__ = "devices"
    __table_args__ = (
        Index("ix_devices_state", "state", "presence"),
        Index("ix_devices_presence", "presence", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    device_class: Mapped[str] = mapped_column(String(64), index=True)
    tags: Mapped[list[Any]]
    state: Mapped[str] = mapped_column(String(16))
    presence: Mapped[str] = mapped_column(String(16))
    boot: Mapped[str | None] = mapped_column(String(32))
    session: Mapped[int] = mapped_column(default=0)
    hardware: Mapped[dict[str, Any] | None]
    ort_key: Mapped[str | None] = mapped_column(String(64))
    agent_key: Mapped[str | None] = mapped_column(String(64))
    active: Mapped[list[Any] | None]
    sequence: Mapped[int] = mapped_column(default=0)
    token_id: Mapped[str] = mapped_column(String(32))
    certificate_serial: Mapped[str | None] = mapped_column(String(64))
    certificate_expires_at: Mapped[datetime | None]
    seen_certificate: Mapped[dict[str, Any] | None]
    spki_sha256: Mapped[str] = mapped_column(String(64))
    turns: Mapped[list[Any]]
    clone_suspected_at: Mapped[datetime | None]
    drifted_at: Mapped[datetime | None]
    rolled_back: Mapped[bool] = mapped_column(default=False)
    revoked_at: Mapped[datetime | None]
    revoke_reason: Mapped[str] = mapped_column(Text)
    enrolled_at: Mapped[datetime]
    last_seen_at: Mapped[datetime | None]


class DeviceTagRow(Base):
    """A tag of a device: what ``DeviceRow.tags`` says, for asking by tag."""

    __tablename__ = "device_tags"

    tag: Mapped[str] = mapped_column(String(64), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True, index=True)


class FleetRow(Base):
    """A selector that was saved under a name."""

    __tablename__ = "fleets"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    selector: Mapped[str] = mapped_column(Text)
    note: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class DeviceModelRow(Base):
    """A model that a device serves: what ``DeviceRow.active`` says, for asking by model.

    ``since``: when it first told of exactly this version, variant and file.
    """

    __tablename__ = "device_models"
    __table_args__ = (Index("ix_device_models_version", "model", "version", "device_id"),)

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int]
    variant: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))
    since: Mapped[datetime]


class DeviceKeyRow(Base):
    """A public key that is or was a device's, for ever: no key becomes two devices.

    ``token_id``: the join token that it came with; none if it came by renewal.
    """

    __tablename__ = "device_keys"

    spki_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    token_id: Mapped[str | None] = mapped_column(String(32))
    at: Mapped[datetime]


class CertificateRow(Base):
    """A certificate that was issued to a device. ``csr_sha256``: of the request's PEM text."""

    __tablename__ = "certificates"
    __table_args__ = (Index("ix_certificates_device", "device_id", "issued_at"),)

    serial: Mapped[str] = mapped_column(String(64), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    spki_sha256: Mapped[str] = mapped_column(String(64))
    csr_sha256: Mapped[str] = mapped_column(String(64))
    root_sha256: Mapped[str] = mapped_column(String(64))
    pem: Mapped[str] = mapped_column(Text)
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    seen_at: Mapped[datetime | None]


class RevokedCertificateRow(Base):
    """A certificate that must not be accepted any more."""

    __tablename__ = "revoked_certificates"

    serial: Mapped[str] = mapped_column(String(64), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), index=True)
    at: Mapped[datetime]
    reason: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class DeviceClassRow(Base):
    """What an operator said of a class of devices."""

    __tablename__ = "device_classes"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    spec: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime]


class MeasuredRow(Base):
    """What a device measured of a variant's file; the newest for each batch size.

    Its class is the device's, so a device that changes it takes its figures along.
    """

    __tablename__ = "measured"
    __table_args__ = (Index("ix_measured_sha256", "sha256"),)

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    batch: Mapped[int] = mapped_column(primary_key=True)
    benchmark: Mapped[dict[str, Any]]
    at: Mapped[datetime]
