"""Whether a text was signed by the key of a certificate; pure mathematics."""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa


def is_signed_by(certificate_pem: str, text: bytes, signature: str) -> bool:
    """Whether the key of the first certificate signed a text.

    ECDSA with SHA-256 (FIPS 186-5), Ed25519 (RFC 8032), or RSA with SHA-256 and PKCS #1 v1.5
    padding (RFC 8017), as the key is.

    Args:
        certificate_pem: its first certificate is the signer's.
        text: what was signed.
        signature: in base64.
    """
    try:
        given = base64.b64decode(signature, validate=True)
        key = x509.load_pem_x509_certificates(certificate_pem.encode())[0].public_key()
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(given, text, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(given, text)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(given, text, padding.PKCS1v15(), hashes.SHA256())
        else:
            return False
    except (ValueError, IndexError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
