"""What the fleet trusts, in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.adapters.tables.devices import CertificateRow, DeviceRow, RevokedCertificateRow
from orchestrator.services.ports.gate import DeviceTrust
from schemas.device import CertificateSeen, DeviceState, Presence


class SqlFleetTrust:
    """``services.ports.FleetTrust`` over SQLAlchemy."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def mark(self) -> tuple[int | datetime | None, ...]:
        certificates = select(func.count(), func.max(RevokedCertificateRow.at)).select_from(
            RevokedCertificateRow
        )
        # A device that comes back revokes nothing, and must be denied nothing any more.
        devices = select(func.count(), func.max(DeviceRow.revoked_at)).where(
            DeviceRow.state == DeviceState.REVOKED.value
        )
        found = (self._session.execute(query).one() for query in (certificates, devices))
        return tuple(value for row in found for value in row)

    def devices(self) -> Sequence[DeviceTrust]:
        query = (
            select(
                DeviceRow.id,
                DeviceRow.presence,
                DeviceRow.boot,
                DeviceRow.session,
                DeviceRow.seen_certificate,
                CertificateRow.root_sha256,
            )
            .outerjoin(CertificateRow, CertificateRow.serial == DeviceRow.certificate_serial)
            .where(DeviceRow.state.in_((DeviceState.ACTIVE.value, DeviceState.SUSPENDED.value)))
            .order_by(DeviceRow.id)
        )
        found = []
        for device, presence, boot, session, seen, root in self._session.execute(query):
            said = None if seen is None else CertificateSeen.model_validate(seen).roots
            online = presence == Presence.ONLINE.value
            found.append(DeviceTrust(device, online, boot, session, said, root))
        return found
