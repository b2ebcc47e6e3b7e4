"""What authorities give out and take back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.authority.parts import spki_sha256


@dataclass(frozen=True, slots=True)
class Issued:
    """A device's certificate, in ``pem`` followed by the authorities that issued it.

    serial: lower-case hex. spki_sha256: of the public key's DER form, in hex. root_sha256:
    of the root that the chain ends at.
    """

    pem: str
    serial: str
    spki_sha256: str
    expires: datetime
    root_sha256: str


@dataclass(frozen=True, slots=True)
class RevokedSerial:
    """A certificate that must not be accepted any more; serial in hex."""

    serial: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Canary:
    """Two certificates of one authority for nobody, by which a broker is tried.

    Both name ``domain.gate.CANARY``, who may do nothing. ``bad`` is to be in the revocation list.
    """

    key: ec.EllipticCurvePrivateKey
    good_pem: str
    bad_pem: str
    bad: RevokedSerial


def issued(pem: str, certificate: x509.Certificate, root_sha256: str) -> Issued:
    """A certificate and what is kept of it."""
    return Issued(
        pem=pem,
        serial=f"{certificate.serial_number:x}",
        spki_sha256=spki_sha256(certificate.public_key()),
        expires=certificate.not_valid_after_utc,
        root_sha256=root_sha256,
    )
