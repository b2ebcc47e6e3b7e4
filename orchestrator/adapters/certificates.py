"""Parts of X.509 certificates, and the judgement of certificate requests; no files."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from orchestrator.errors import CsrInvalid, Invalid
from schemas.enroll import MAX_CSR_BYTES

PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER

CA_DAYS = 3650
SKEW = timedelta(hours=1)
"""How far a device's clock may be behind without refusing a new certificate."""

_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


def utc_now() -> datetime:
    """The system's clock."""
    return datetime.now(UTC)


def requested_key(csr_pem: str) -> PublicKey:
    """The public key of a request whose signature shows that its sender has the private one.

    Raises:
        CsrInvalid: it is malformed, not signed by its key, or its key is weak.
    """
    if len(csr_pem.encode()) > MAX_CSR_BYTES:
        msg = f"the certificate request is larger than {MAX_CSR_BYTES} bytes"
        raise CsrInvalid(msg)
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        key = csr.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        msg = "the certificate request is not PKCS #10 in PEM form"
        raise CsrInvalid(msg) from error
    # The key is judged before its signature is checked: a huge RSA key costs time.
    accepted = _accepted(key)
    try:
        valid = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        valid = False
    if not valid:
        msg = "the certificate request is not signed by the key that it names"
        raise CsrInvalid(msg)
    return accepted


def _accepted(key: object) -> PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in {"secp256r1", "secp384r1"}:
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, rsa.RSAPublicKey) and _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        return key
    msg = "the certificate request's key is not accepted"
    hint = "use EC P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits"
    raise CsrInvalid(msg, hint=hint)


def self_signed(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """A CA's own certificate; the CA may issue no further CAs."""
    name = distinguished_name(f"argosy {key.public_key().public_numbers().x:064x}"[:23])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def distinguished_name(common_name: str) -> x509.Name:
    """A subject that is a common name and nothing else."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


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
