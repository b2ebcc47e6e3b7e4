"""Revocation lists (RFC 5280, section 5); no files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.authority.issued import RevokedSerial
from orchestrator.adapters.authority.parts import PEM, SKEW
from orchestrator.errors import Unavailable

MAX_CRL_BYTES = 16 * 1024**2
_LATE = timedelta(days=30)
_BEGIN = b"-----BEGIN X509 CRL-----"
_END = b"-----END X509 CRL-----"
MAX_LISTS = 16


def make_crl(
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    revoked: Mapping[int, datetime],
    now: datetime,
) -> str:
    """A list of exactly ``revoked`` (serial → when), in PEM form.

    It is valid as long as its issuer, because mosquitto refuses everyone once it is outdated;
    of an issuer that ended, for a while longer: the others are not to be held up by it.

    Raises:
        Unavailable: it does not read back as it was written: mosquitto would let everyone in.
    """
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - SKEW)
        .next_update(max(issuer.not_valid_after_utc, now + _LATE))
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        .add_extension(signed_by, critical=False)
    )
    for serial, at in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder(serial, at.astimezone(UTC))
        builder = builder.add_revoked_certificate(entry.build())
    pem = builder.sign(key, hashes.SHA256()).public_bytes(PEM)
    back = read_crls(pem)
    if len(back) != 1 or serials_of(back[0]) != set(revoked) or not signed(back[0], issuer):
        msg = "the revocation list did not read back as it was written; the old one stands"
        raise Unavailable(msg)
    return pem.decode()


def read_crls(pem: bytes) -> tuple[x509.CertificateRevocationList, ...]:
    """The lists in a PEM text, however many.

    Raises:
        ValueError: something in it is not one, or it is too large.
    """
    if len(pem) > MAX_CRL_BYTES or pem.count(_BEGIN) > MAX_LISTS:
        msg = f"larger than {MAX_CRL_BYTES} bytes, or more than {MAX_LISTS} lists"
        raise ValueError(msg)
    found = []
    for part in pem.split(_BEGIN)[1:]:
        body, end, _ = part.partition(_END)
        if not end:
            msg = "a revocation list has no end"
            raise ValueError(msg)
        found.append(x509.load_pem_x509_crl(_BEGIN + body + _END + b"\n"))
    return tuple(found)


def serials_of(crl: x509.CertificateRevocationList) -> set[int]:
    """The serial numbers that a list names."""
    return {entry.serial_number for entry in crl}


def signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Whether a list is its issuer's, by name and signature."""
    try:
        return crl.issuer == issuer.subject and crl.is_signature_valid(
            issuer.public_key()  # type: ignore[arg-type]
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def by_serial(revoked: Iterable[RevokedSerial]) -> dict[int, datetime]:
    """What is revoked, by number."""
    return {int(r.serial, 16): r.at for r in revoked}
