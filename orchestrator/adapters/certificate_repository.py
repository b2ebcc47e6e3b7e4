"""Keys and certificates of devices in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session

from orchestrator.adapters.repository import Records
from orchestrator.adapters.tables import (
    CertificateRow,
    DeviceKeyRow,
    DeviceRow,
    RevokedCertificateRow,
)
from orchestrator.services.records import CertificateRecord, DeviceKeyRecord, RevokedCertificate


class SqlCertificates:
    """``services.ports.Certificates`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._keys = Records(session, DeviceKeyRow, DeviceKeyRecord)
        self._certificates = Records(session, CertificateRow, CertificateRecord)
        self._revoked = Records(session, RevokedCertificateRow, RevokedCertificate)

    def add_key(self, record: DeviceKeyRecord) -> None:
        self._keys.add(record)

    def key(self, spki_sha256: str) -> DeviceKeyRecord | None:
        return self._keys.get(spki_sha256)

    def add_certificate(self, record: CertificateRecord) -> None:
        self._certificates.add(record)

    def certificate(self, serial: str) -> CertificateRecord | None:
        return self._certificates.get(serial)

    def certificates(self, device_id: str) -> Sequence[CertificateRecord]:
        query = select(CertificateRow).where(CertificateRow.device_id == device_id)
        newest = query.order_by(CertificateRow.issued_at.desc(), CertificateRow.serial)
        return self._certificates.all(newest)

    def answering(self, device_id: str, csr_sha256: str) -> CertificateRecord | None:
        query = select(CertificateRow).where(
            CertificateRow.device_id == device_id, CertificateRow.csr_sha256 == csr_sha256
        )
        newest = query.order_by(CertificateRow.issued_at.desc(), CertificateRow.serial)
        return next(iter(self._certificates.all(newest.limit(1))), None)

    def see_certificate(self, device_id: str, serial: str, at: datetime) -> bool:
        seen = (
            update(CertificateRow)
            .where(
                CertificateRow.serial == serial,
                CertificateRow.device_id == device_id,
                CertificateRow.seen_at.is_(None),
            )
            .values(seen_at=at)
        )
        return self._count(seen) == 1

    def revoke_serial(self, record: RevokedCertificate) -> None:
        if self._revoked.get(record.serial) is None:
            self._revoked.add(record)

    def revoked_serials(self, now: datetime | None = None) -> Sequence[RevokedCertificate]:
        query = select(RevokedCertificateRow).order_by(RevokedCertificateRow.serial)
        if now is not None:
            query = query.where(RevokedCertificateRow.expires_at > now)
        return self._revoked.all(query)

    def revoked_of(
        self, device_id: str, now: datetime | None = None
    ) -> Sequence[RevokedCertificate]:
        query = select(RevokedCertificateRow).where(RevokedCertificateRow.device_id == device_id)
        if now is not None:
            query = query.where(RevokedCertificateRow.expires_at > now)
        return self._revoked.all(query.order_by(RevokedCertificateRow.serial))

    def is_revoked(self, serial: str) -> bool:
        return self._revoked.get(serial) is not None

    def prune_certificates(self, before: datetime) -> int:
        newest = select(DeviceRow.certificate_serial).where(
            DeviceRow.certificate_serial.is_not(None)
        )
        old = delete(CertificateRow).where(
            CertificateRow.expires_at < before, CertificateRow.serial.not_in(newest)
        )
        return self._count(old)

    def _count(self, statement: Any) -> int:
        return cast("CursorResult[Any]", self._session.execute(statement)).rowcount
