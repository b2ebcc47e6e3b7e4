"""Parts of X.509 certificates (RFC 5280); no files."""

from __future__ import annotations

import hashlib
import ipaddress
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from orchestrator.errors import Invalid

PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER

ROOT_DAYS = 3650
ISSUING_DAYS = 1825
SKEW = timedelta(hours=1)
"""How far a device's clock may be behind without refusing a new certificate."""

ROOT_PATH_LENGTH = 2
"""A root, the next root as it signed it, the issuing authority: two between it and a device."""

_CN_HEX = 16


def distinguished_name(common_name: str) -> x509.Name:
    """A subject that is a common name and nothing else."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def common_name(certificate: x509.Certificate) -> str | None:
    """The subject's common name; None when there is none, or more than one."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else None


def key_usage(*, ca: bool) -> x509.KeyUsage:
    """Signing certificates and lists (a CA), or handshakes (anyone else)."""
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def general_name(name: str) -> x509.GeneralName:
    """An IP address or a DNS name as a certificate holds it.

    Raises:
        Invalid: it is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name.encode("idna").decode())
    except UnicodeError as error:
        msg = f"{name[:80]!r} is neither a host name nor an address"
        raise Invalid(msg) from error


def authority_name(kind: str, key: ec.EllipticCurvePrivateKey) -> x509.Name:
    """``argosy root 3f2a…``: no two authorities have the same name."""
    return distinguished_name(f"argosy {kind} {spki_sha256(key.public_key())[:_CN_HEX]}")


def builder(
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    validity: tuple[datetime, datetime],
    *,
    path_length: int | None = None,
    ca: bool = False,
) -> x509.CertificateBuilder:
    """What all our certificates have; ``validity`` is from and until."""
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(key_usage(ca=ca), critical=True)
        .add_extension(signed_by, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def new_root(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """A root's own certificate."""
    name = authority_name("root", key)
    validity = (now - SKEW, now + timedelta(days=ROOT_DAYS))
    made = builder(
        name, key.public_key(), name, key, validity, path_length=ROOT_PATH_LENGTH, ca=True
    )
    return made.sign(key, hashes.SHA256())


def new_issuing(
    key: ec.EllipticCurvePrivateKey,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    """An issuing authority: below it there is none."""
    until = min(now + timedelta(days=ISSUING_DAYS), root.not_valid_after_utc)
    made = builder(
        authority_name("issuing", key),
        key.public_key(),
        root.subject,
        root_key,
        (now - SKEW, until),
        path_length=0,
        ca=True,
    )
    return made.sign(root_key, hashes.SHA256())


def cross_signed(
    root: x509.Certificate, old: x509.Certificate, old_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """A new root as the old one signs it: who knows only the old one can follow."""
    until = min(root.not_valid_after_utc, old.not_valid_after_utc)
    key = root.public_key()
    validity = (root.not_valid_before_utc, until)
    made = builder(root.subject, key, old.subject, old_key, validity, path_length=1, ca=True)
    return made.sign(old_key, hashes.SHA256())


def path_length(certificate: x509.Certificate) -> int | None:
    """How many authorities may stand below; None is any number, -1: it is no authority."""
    try:
        held = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        return -1
    return held.path_length if held.ca else -1


def sha256_of(certificate: x509.Certificate) -> str:
    """The SHA-256 of a certificate's DER form, in hex: what a join token pins."""
    return hashlib.sha256(certificate.public_bytes(DER)).hexdigest()


def spki_sha256(key: CertificatePublicKeyTypes) -> str:
    """The SHA-256 of a public key's DER form (SubjectPublicKeyInfo), in hex."""
    info = key.public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).hexdigest()


def pem_of(*certificates: x509.Certificate) -> str:
    """Certificates in PEM form, one after the other."""
    return "".join(c.public_bytes(PEM).decode() for c in certificates)
