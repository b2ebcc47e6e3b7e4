"""The API's certificate: the platform's own, or one that the operator gives."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from orchestrator.adapters.authority.parts import general_name, pem_of
from orchestrator.clock import utc_now
from orchestrator.errors import Invalid
from orchestrator.home import Home, write_atomic
from orchestrator.settings import Settings

log = logging.getLogger(__name__)

_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Served:
    """The files that TLS is served with. root: the chain's own root, where it holds one."""

    certificate: Path
    key: Path
    root: x509.Certificate | None = None


def check_given(certificate: Path, key: Path, names: tuple[str, ...], now: datetime) -> Served:
    """See that a given certificate can be served.

    Args:
        certificate: PEM, with the authorities that issued it.
        key: its private key, PEM.
        names: host names or addresses by which the API is reached; it must have all.
        now: the time.

    Raises:
        Invalid: it cannot; the message names the setting and the file.
    """
    try:
        chain = x509.load_pem_x509_certificates(_read("ARGOSY_TLS_CERT", certificate))
    except (ValueError, UnsupportedAlgorithm) as error:
        msg = f"ARGOSY_TLS_CERT: {certificate} holds no certificates in PEM form"
        raise Invalid(msg) from error
    try:
        private = serialization.load_pem_private_key(_read("ARGOSY_TLS_KEY", key), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        msg = f"ARGOSY_TLS_KEY: {key} is no private key in PEM form without a passphrase"
        raise Invalid(msg) from error
    leaf = chain[0]
    if leaf.public_key() != private.public_key():
        msg = f"ARGOSY_TLS_KEY: {key} is not the key of the first certificate in {certificate}"
        raise Invalid(msg, hint="the server's certificate comes first, then its authorities")
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        msg = f"ARGOSY_TLS_CERT: {certificate} is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}"
        raise Invalid(msg, hint="renew it, and see that this machine's clock is right")
    missing = [name for name in names if not _holds(leaf, name)]
    if missing:
        msg = f"ARGOSY_TLS_CERT: {certificate} is not for {', '.join(missing)}"
        hint = "set ARGOSY_PUBLIC_URL to a name that is in it, or use another certificate"
        raise Invalid(msg, hint=hint)
    last = chain[-1]
    return Served(certificate, key, last if last.issuer == last.subject else None)


def given_to(settings: Settings) -> Served | None:
    """The certificate that the API was given; None where it has the platform's own.

    Raises:
        Invalid: it cannot be served; see ``check_given``.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    name = urlsplit(settings.url).hostname or settings.host
    return check_given(settings.tls_cert, settings.tls_key, (name,), utc_now())


def local_ca(settings: Settings, home: Home) -> str | None:
    """The PEM file by which programs on this machine check the API's certificate.

    None: there is no TLS, or the system knows who issued the certificate that was given.
    """
    given = given_to(settings)
    if not settings.tls or (given is not None and given.root is None):
        return None
    if given is None or given.root is None:
        return str(home.ca_pem)
    path = home.ca / "given.pem"
    write_atomic(path, pem_of(given.root).encode(), 0o644)
    return str(path)


def keep_serving(context: ssl.SSLContext, certificate: Path, key: Path) -> Callable[[], None]:
    """A task that has a running server take up its certificate when the file changes.

    New connections get the new one; those that are open go on.
    """
    seen = _stamp(certificate, key)

    def look() -> None:
        nonlocal seen
        now = _stamp(certificate, key)
        if now == seen:
            return
        seen = now
        try:
            # Tried elsewhere first: a pair that does not fit would leave the server without one.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            context.load_cert_chain(certificate, key)
        except OSError as error:
            # Half of a pair that somebody is replacing: the other half is a change too.
            log.warning("%s is not taken up: %s", certificate, error)
        else:
            log.info("took up %s", certificate)

    return look


def _read(setting: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT)
    except OSError as error:
        msg = f"{setting}: {path} cannot be read: {error.strerror}"
        raise Invalid(msg) from error


def _holds(leaf: x509.Certificate, name: str) -> bool:
    try:
        held = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    wanted = general_name(name)
    if wanted in held or not isinstance(wanted, x509.DNSName):
        return wanted in held
    _, dot, parent = wanted.value.lower().partition(".")
    dns = {found.lower() for found in held.get_values_for_type(x509.DNSName)}
    return wanted.value.lower() in dns or (bool(dot) and f"*.{parent}" in dns)


def _stamp(*paths: Path) -> tuple[int, ...]:
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)
