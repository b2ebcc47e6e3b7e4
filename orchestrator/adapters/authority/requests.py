"""The judgement of certificate requests (PKCS #10, RFC 2986); no files."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from orchestrator.adapters.authority.parts import spki_sha256
from orchestrator.errors import CsrInvalid
from schemas.enroll import MAX_CSR_BYTES

_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


def requested_key(csr_pem: str) -> PublicKey:
    """The public key of a request whose signature shows that its sender has the private one.

    Raises:
        CsrInvalid: it is malformed, not signed by its key, or its key is weak.
    """
    if len(csr_pem.encode(errors="replace")) > MAX_CSR_BYTES:
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


def spki_of_csr(csr_pem: str) -> str:
    """The SHA-256 of the key that a request names, in hex; raises as ``requested_key``."""
    return spki_sha256(requested_key(csr_pem))


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
