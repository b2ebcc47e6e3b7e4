"""The server's certificate on disk: ``server.pem`` with its chain, and ``server.key``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.authority import generations
from orchestrator.adapters.authority.chains import issued_by
from orchestrator.adapters.authority.parts import pem_of
from orchestrator.home import write_atomic

_RENEW_DAYS = 240


def keep_server(
    folder: Path,
    issuer: x509.Certificate,
    chain: tuple[x509.Certificate, ...],
    sans: Sequence[x509.GeneralName],
    now: datetime,
    issue: Callable[[ec.EllipticCurvePublicKey], x509.Certificate],
) -> bool:
    """See that there is a certificate of ``issuer`` for ``sans``, and that it lasts.

    Args:
        folder: where the files lie.
        issuer: who is to have issued it.
        chain: the authorities that are sent with it.
        sans: the names that it must have.
        now: the time.
        issue: makes a new one for a key.

    Returns:
        Whether a new certificate was made.
    """
    pem_path, key_path = folder / "server.pem", folder / "server.key"
    key = _key(key_path)
    if key is not None and _still_good(pem_path, key, issuer, chain, sans, now):
        return False
    if key is None:
        key = ec.generate_private_key(ec.SECP256R1())
        write_atomic(key_path, generations.key_pem(key), 0o600)
    # The key stays where it can: then a crash leaves a pair that fits.
    write_atomic(pem_path, pem_of(issue(key.public_key()), *chain).encode(), 0o644)
    return True


def _key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _still_good(
    pem_path: Path,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate,
    chain: tuple[x509.Certificate, ...],
    sans: Sequence[x509.GeneralName],
    now: datetime,
) -> bool:
    """Whether the certificate may be kept."""
    try:
        leaf, *tail = x509.load_pem_x509_certificates(pem_path.read_bytes())
        held = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    # An authority near its end cannot give a longer one.
    longest = issuer.not_valid_after_utc - timedelta(days=1)
    return (
        tuple(tail) == chain
        and issued_by(leaf, issuer)
        and leaf.public_key() == key.public_key()
        and set(sans) <= set(held.value)
        and leaf.not_valid_before_utc <= now  # else the clock was ahead when it was made
        and (
            leaf.not_valid_after_utc - now > timedelta(days=_RENEW_DAYS)
            or leaf.not_valid_after_utc >= longest
        )
    )
