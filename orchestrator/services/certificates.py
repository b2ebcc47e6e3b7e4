"""What is written when a device's certificate is issued or revoked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.domain.enrollment import CertificateFacts, HolderFacts
from orchestrator.services.ports import IssuedCertificate, Transaction
from orchestrator.services.records import (
    CertificateRecord,
    DeviceKeyRecord,
    DeviceRecord,
    RevokedCertificate,
)


def request_digest(csr_pem: str) -> str:
    """SHA-256 of a request's PEM text."""
    return hashlib.sha256(csr_pem.encode()).hexdigest()


def facts(tx: Transaction, device_id: str) -> Sequence[CertificateFacts]:
    """All that is known of a device's certificates, newest first."""
    revoked = {one.serial for one in tx.devices.revoked_of(device_id)}
    held = tx.devices.certificates(device_id)
    return [_facts(record, revoked=record.serial in revoked) for record in held]


def holder(tx: Transaction, device: DeviceRecord, token_id: str | None = None) -> HolderFacts:
    """What decisions look at of a device. token_id: with which the key at hand came."""
    serial = device.certificate_serial
    record = tx.devices.certificate(serial) if serial else None
    return HolderFacts(
        id=device.id,
        state=device.state,
        token=token_id,
        spki_sha256=device.spki_sha256,
        certificate=_facts(record, revoked=tx.devices.is_revoked(record.serial))
        if record
        else None,
    )


def _facts(record: CertificateRecord, *, revoked: bool) -> CertificateFacts:
    return CertificateFacts(
        serial=record.serial,
        spki_sha256=record.spki_sha256,
        csr_sha256=record.csr_sha256,
        issued_at=record.issued_at,
        expires_at=record.expires_at,
        seen=record.seen_at is not None,
        revoked=revoked,
    )


def hold_key(
    tx: Transaction, device_id: str, spki_sha256: str, token_id: str | None, now: datetime
) -> None:
    """Note whose a key is, unless it is that device's already."""
    if tx.devices.key(spki_sha256) is None:
        tx.devices.add_key(
            DeviceKeyRecord(spki_sha256=spki_sha256, device_id=device_id, token_id=token_id, at=now)
        )


def store(
    tx: Transaction, device: DeviceRecord, issued: IssuedCertificate, csr_pem: str, now: datetime
) -> DeviceRecord:
    """Write down that a device has a new certificate; its record as saved."""
    tx.devices.add_certificate(
        CertificateRecord(
            serial=issued.serial,
            device_id=device.id,
            spki_sha256=issued.spki_sha256,
            csr_sha256=request_digest(csr_pem),
            root_sha256=issued.root_sha256,
            pem=issued.pem,
            issued_at=now,
            expires_at=issued.expires,
        )
    )
    device = replace(
        device,
        spki_sha256=issued.spki_sha256,
        certificate_serial=issued.serial,
        certificate_expires_at=issued.expires,
    )
    tx.devices.save(device)
    return device


def revoke_all(tx: Transaction, device_id: str, reason: str, now: datetime) -> Sequence[str]:
    """Revoke every certificate of a device; the serials of those that were still valid.

    Expired ones too: for a while their keys could still be proven to renew them.
    """
    serials = []
    for record in tx.devices.certificates(device_id):
        if tx.devices.is_revoked(record.serial):
            continue
        if record.expires_at > now:
            serials.append(record.serial)
        tx.devices.revoke_serial(
            RevokedCertificate(
                serial=record.serial,
                device_id=device_id,
                at=now,
                reason=reason,
                expires_at=record.expires_at,
            )
        )
    return serials
