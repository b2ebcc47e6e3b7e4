"""X.509 as a device needs it: its key, its request, and whether a chain leads to a root.

Pure: PEM in, values out (RFC 5280; requests are PKCS #10, RFC 2986). The TLS library checks
what the other end shows; this checks what a device is given before it keeps it.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_client.errors import CertificateError
from schemas.device import CertificateSeen

MAX_CERTIFICATES = 8
"""In one PEM text: roots, or a chain."""

MAX_DEPTH = 5
_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER
_CURVES = frozenset({"secp256r1", "secp384r1"})


@dataclass(frozen=True, slots=True)
class Life:
    """From when to when a certificate is valid; both with a zone."""

    start: dt.datetime
    end: dt.datetime


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key for a device: EC P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key in PKCS #8 form, without a password."""
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def read_key(pem: bytes, what: str) -> ec.EllipticCurvePrivateKey:
    """Read a private key. what: its name in errors.

    Raises:
        CertificateError: it is none that can be used.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError as error:
        msg = f"{what} is protected by a password"
        raise CertificateError(msg, hint="the agent starts by itself; use a key without") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        msg = f"{what} is not a private key in PEM form"
        raise CertificateError(msg, hint="make one with `argosy-edge key FILE`") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        msg = f"{what} is not an EC key on P-256 or P-384"
        raise CertificateError(msg, hint="make one with `argosy-edge key FILE`")
    return key


def spki_sha256(key: ec.EllipticCurvePrivateKey) -> str:
    """SHA-256 of the public half (SubjectPublicKeyInfo in DER form), in hex."""
    spki = key.public_key().public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def request(key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate request for a key, in PEM. The server gives the name."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "argosy-device")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return csr.public_bytes(_PEM).decode()


def sign(key: ec.EllipticCurvePrivateKey, text: bytes) -> str:
    """An ECDSA signature with SHA-256, in base64."""
    return base64.b64encode(key.sign(text, ec.ECDSA(hashes.SHA256()))).decode()


def read_certificates(pem: bytes, what: str) -> list[x509.Certificate]:
    """Read one certificate or several. what: their name in errors.

    Raises:
        CertificateError: there is none, one is damaged, or there are too many.
    """
    try:
        found = x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        msg = f"{what} is not a certificate in PEM form"
        raise CertificateError(msg) from error
    if len(found) > MAX_CERTIFICATES:
        msg = f"{what} holds {len(found)} certificates; {MAX_CERTIFICATES} are the most"
        raise CertificateError(msg)
    return found


def to_pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """Certificates as PEM, one after the other."""
    return b"".join(certificate.public_bytes(_PEM) for certificate in certificates)


def digest(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER form, in hex: what join tokens pin."""
    return hashlib.sha256(certificate.public_bytes(_DER)).hexdigest()


def life_of(certificate: x509.Certificate) -> Life:
    """When it is valid."""
    return Life(certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def seen(leaf: x509.Certificate, roots: Sequence[x509.Certificate]) -> CertificateSeen:
    """What a birth message says of them."""
    return CertificateSeen(
        serial=f"{leaf.serial_number:x}", roots=tuple(digest(root) for root in roots)
    )


def check_issued(
    chain: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    *,
    key: ec.EllipticCurvePrivateKey,
    device: str,
    now: dt.datetime,
) -> None:
    """Check a certificate that was issued to this device.

    Args:
        chain: the device's, then those between it and a root, in any order.
        roots: the authorities that are trusted.
        key: this device's.
        device: its id.
        now: the time, with a zone.

    Raises:
        CertificateError: it must not be kept, or the clock is wrong.
    """
    leaf = chain[0]
    if leaf.public_key() != key.public_key():
        msg = "the certificate is for another key than this device's"
        raise CertificateError(msg)
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [device]:
        msg = "the certificate names another device"
        raise CertificateError(msg)
    if not leads_to_root(leaf, chain[1:], roots):
        msg = "the certificate was not issued by the pinned authority"
        raise CertificateError(msg)
    check_time(life_of(leaf), now, "the certificate")


def check_time(life: Life, now: dt.datetime, what: str) -> None:
    """See that the clock says a time at which a certificate is valid.

    Raises:
        CertificateError: it does not.
    """
    clock = f"this device's clock says {now:%Y-%m-%d %H:%M} UTC"
    hint = "set this device's clock, then try again"
    if now < life.start:
        msg = f"{what} is not valid yet: it begins at {life.start:%Y-%m-%d %H:%M} UTC, and {clock}"
        raise CertificateError(msg, hint=hint)
    if now >= life.end:
        msg = f"{what} is no longer valid: it ended at {life.end:%Y-%m-%d %H:%M} UTC, and {clock}"
        raise CertificateError(msg, hint=hint)


def leads_to_root(
    leaf: x509.Certificate,
    between: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    depth: int = MAX_DEPTH,
) -> bool:
    """Whether authorities lead from a certificate to a root (RFC 5280, 6.1, without names).

    Where there are several ways, as while the authority is being rotated, one is enough.
    """
    if any(_issued(leaf, root) for root in roots):
        return True
    if depth == 0:
        return False
    issuers = [one for one in between if one != leaf and _issued(leaf, one)]
    return any(leads_to_root(one, between, roots, depth - 1) for one in issuers)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if not is_authority(issuer):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may issue others."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return found.value.ca
