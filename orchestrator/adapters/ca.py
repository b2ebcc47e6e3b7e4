"""The embedded certificate authority: the server's certificate, the devices', the CRL.

X.509 as RFC 5280 has it. From a device's request only the public key is taken, once the
request's own signature has shown that the device holds the private one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from orchestrator.adapters.certificates import (
    DER,
    PEM,
    SKEW,
    distinguished_name,
    general_name,
    key_usage,
    requested_key,
    self_signed,
    utc_now,
)
from orchestrator.errors import Invalid, Unavailable
from orchestrator.home import write_atomic
from schemas.ids import device_id_pattern

SERVER_DAYS = 730
_RENEW_DAYS = 240
_DEVICE_ID = re.compile(device_id_pattern())


@dataclass(frozen=True, slots=True)
class Issued:
    """A device's certificate.

    serial: lower-case hex. spki_sha256: of the public key's DER form, in hex.
    """

    pem: str
    serial: str
    spki_sha256: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class RevokedSerial:
    """A certificate that must not be accepted any more; serial in hex."""

    serial: str
    at: datetime


class CertificateAuthority:
    """A CA whose key (EC P-256) lies in a folder.

    Args:
        folder: holds ``ca.key`` and ``ca.pem``.
        key: the CA's private key.
        certificate: the CA's certificate.
        clock: tells the time; timezone-aware.
    """

    def __init__(
        self,
        folder: Path,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        clock: Callable[[], datetime],
    ) -> None:
        self._folder = folder
        self._key = key
        self._certificate = certificate
        self._clock = clock

    @classmethod
    def open_or_create(cls, folder: Path, clock: Callable[[], datetime] = utc_now) -> Self:
        """Open the CA of a folder, making it (and an empty CRL) at the first call.

        Raises:
            Unavailable: one of its files is missing or damaged.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_path, pem_path = folder / "ca.key", folder / "ca.pem"
        if not pem_path.exists():
            # The key first: a crash in between leaves a key, and then only the rest is made.
            key = _load_key(key_path) if key_path.exists() else _new_key(key_path)
            certificate = self_signed(key, clock())
            write_atomic(pem_path, certificate.public_bytes(PEM), 0o644)
        authority = cls.open(folder, clock)
        if not (folder / "crl.pem").exists():
            authority.write_crl(())
        return authority

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], datetime] = utc_now) -> Self:
        """Open the CA of a folder.

        Raises:
            Unavailable: one of its files is missing or damaged.
        """
        key = _load_key(folder / "ca.key")
        try:
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        except (OSError, ValueError) as error:
            raise _damaged(folder / "ca.pem") from error
        if certificate.public_key() != key.public_key():
            msg = f"{folder}: ca.key is not the key of ca.pem"
            raise Unavailable(msg, hint="restore both from the same backup")
        return cls(folder, key, certificate, clock)

    @property
    def pem(self) -> str:
        """The CA's certificate."""
        return self._certificate.public_bytes(PEM).decode()

    def ca_sha256(self) -> str:
        """The SHA-256 of the certificate's DER form, in hex: what a join token pins."""
        return hashlib.sha256(self._certificate.public_bytes(DER)).hexdigest()

    def ensure_server(self, names: tuple[str, ...]) -> bool:
        """See to ``server.pem`` and ``server.key``: valid for long enough and for ``names``.

        Args:
            names: DNS names and IP addresses, all of which the certificate shall hold.

        Returns:
            Whether a new certificate was made.
        """
        pem_path, key_path = self._folder / "server.pem", self._folder / "server.key"
        now = self._clock()
        sans = sorted((general_name(n) for n in names), key=repr)
        if _still_good(pem_path, key_path, sans, self._certificate, now):
            return False
        key = _new_key(key_path)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        builder = self._builder("argosy server", key.public_key(), now, SERVER_DAYS, usages)
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        write_atomic(pem_path, certificate.public_bytes(PEM), 0o644)
        return True

    def issue_device(self, csr_pem: str, device_id: str, days: int) -> Issued:
        """Issue a client certificate for the key of a request (PKCS #10, RFC 2986).

        Args:
            csr_pem: the request; its subject and extensions are ignored.
            device_id: becomes the subject's common name.
            days: how long it is valid.

        Raises:
            CsrInvalid: the request is malformed, not signed by its key, or its key is weak.
            Invalid: ``device_id`` is not one.
        """
        if not _DEVICE_ID.fullmatch(device_id):
            msg = f"{device_id[:80]!r} is not a device id"
            raise Invalid(msg)
        public_key = requested_key(csr_pem)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = self._builder(device_id, public_key, self._clock(), days, usages)
        certificate = builder.sign(self._key, hashes.SHA256())
        spki = public_key.public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return Issued(
            pem=certificate.public_bytes(PEM).decode(),
            serial=f"{certificate.serial_number:x}",
            spki_sha256=hashlib.sha256(spki).hexdigest(),
            expires=certificate.not_valid_after_utc,
        )

    def write_crl(self, revoked: Iterable[RevokedSerial]) -> None:
        """Replace ``crl.pem`` by one that lists exactly ``revoked``.

        It is read back before it replaces the old one, because mosquitto accepts everyone
        when the list is broken. It is valid as long as the CA, because mosquitto refuses
        everyone once it is outdated; it is a file on this machine, so it is never stale.
        """
        path, now = self._folder / "crl.pem", self._clock()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - SKEW)
            .next_update(self._certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
            .add_extension(self._authority_key_identifier(), critical=False)
        )
        serials = {int(r.serial, 16): r.at for r in revoked}
        for serial, at in sorted(serials.items()):
            entry = x509.RevokedCertificateBuilder(serial, at.astimezone(UTC))
            builder = builder.add_revoked_certificate(entry.build())
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(PEM)
        back = x509.load_pem_x509_crl(pem)
        if {r.serial_number for r in back} != set(serials) or not back.is_signature_valid(
            self._key.public_key()
        ):
            msg = "the revocation list did not read back as it was written; the old one stands"
            raise Unavailable(msg)
        write_atomic(path, pem, 0o644)

    def _builder(
        self,
        common_name: str,
        public_key: CertificatePublicKeyTypes,
        now: datetime,
        days: int,
        usages: list[x509.ObjectIdentifier],
    ) -> x509.CertificateBuilder:
        expires = min(now + timedelta(days=days), self._certificate.not_valid_after_utc)
        return (
            x509.CertificateBuilder()
            .subject_name(distinguished_name(common_name))
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(self._authority_key_identifier(), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        )

    def _authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def _still_good(
    pem_path: Path,
    key_path: Path,
    sans: list[x509.GeneralName],
    ca: x509.Certificate,
    now: datetime,
) -> bool:
    """Whether the server's certificate may be kept."""
    try:
        certificate = x509.load_pem_x509_certificate(pem_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        certificate.verify_directly_issued_by(ca)
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        certificate.public_key() == key.public_key()
        and set(sans) <= set(held.value)
        and certificate.not_valid_after_utc - now > timedelta(days=_RENEW_DAYS)
    )


def _new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_atomic(path, pem, 0o600)
    return key


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(path)
    return key


def _damaged(path: Path) -> Unavailable:
    msg = f"{path} is missing or damaged"
    return Unavailable(msg, hint="restore it from a backup; devices trust this CA and no other")
