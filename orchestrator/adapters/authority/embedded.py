"""The platform's own certificate authority.

From a device's request only the public key is taken, once the request's own signature has
shown that the device holds the private one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from orchestrator.adapters.authority import generations, requests
from orchestrator.adapters.authority.chains import issued_by, read_chain
from orchestrator.adapters.authority.checks import check_device_id, check_old, not_ours
from orchestrator.adapters.authority.crl import by_serial, make_crl, read_crls, signed
from orchestrator.adapters.authority.facts import facts_of, problems_of
from orchestrator.adapters.authority.generations import (
    Generation,
    Generations,
    first_generation,
)
from orchestrator.adapters.authority.issued import (
    Canary,
    Issued,
    RevokedSerial,
    issued,
)
from orchestrator.adapters.authority.parts import (
    SKEW,
    builder,
    distinguished_name,
    general_name,
    pem_of,
)
from orchestrator.adapters.authority.server_certificate import keep_server
from orchestrator.clock import utc_now
from orchestrator.domain.gate import CANARY
from orchestrator.errors import Conflict, Unavailable
from orchestrator.home import write_atomic
from orchestrator.services.ports.authority import RootFacts

SERVER_DAYS = 730
_CANARY_DAYS = 30
_CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


class CertificateAuthority:
    """The authority whose files lie in a folder.

    Args:
        folder: holds ``authority.json`` and the generations.
        trusted: what was read from it.
        clock: tells the time; timezone-aware.
    """

    def __init__(
        self, folder: Path, trusted: Generations, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._folder = folder
        self._trusted = trusted
        self._clock = clock
        self._lock = threading.Lock()

    @classmethod
    def open_or_create(cls, folder: Path, clock: Callable[[], datetime] = utc_now) -> Self:
        """Open the authority of a folder, making it (and an empty CRL) at the first call.

        Raises:
            Unavailable: one of its files is missing or damaged.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (folder / generations.STATE).exists():
            generations.save(folder, Generations((first_generation(folder, clock()),)))
        # What an early version kept here is in the first generation now.
        (folder / "ca.key").unlink(missing_ok=True)
        authority = cls.open(folder, clock)
        authority.settle()
        return authority

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], datetime] = utc_now) -> Self:
        """Open the authority of a folder.

        Raises:
            Unavailable: one of its files is missing or damaged.
        """
        found = generations.load(folder)
        if found is None:
            raise generations.damaged(folder / generations.STATE)
        return cls(folder, found, clock)

    @property
    def trusted(self) -> Generations:
        """The authorities as they are now."""
        return self._trusted

    @property
    def pem(self) -> str:
        """The roots to trust, the newest first."""
        return self._trusted.bundle()

    @property
    def crl_pem(self) -> str:
        """The revocation lists as they were written last, one for each issuing authority."""
        try:
            return (self._folder / "crl.pem").read_text()
        except (OSError, ValueError) as error:
            raise generations.damaged(self._folder / "crl.pem") from error

    def ca_sha256(self) -> str:
        """The SHA-256 of the root that new join tokens pin."""
        return self._trusted.anchor.sha256

    def root_of(self, sha256: str) -> bool:
        """Whether that root is still trusted."""
        return any(g.sha256 == sha256 for g in self._trusted.trusted)

    def spki_of_csr(self, csr_pem: str) -> str:
        """The SHA-256 of a request's key; refused as ``issue_device`` would."""
        return requests.spki_of_csr(csr_pem)

    def issue_device(self, csr_pem: str, device_id: str, days: int) -> Issued:
        """Issue a client certificate for the key of a request (PKCS #10, RFC 2986).

        Args:
            csr_pem: the request; its subject and extensions are ignored.
            device_id: becomes the subject's common name.
            days: how long it is valid, at most as long as the issuing authority.

        Raises:
            CsrInvalid: the request is malformed, not signed by its key, or its key is weak.
            Invalid: ``device_id`` is not one.
        """
        check_device_id(device_id)
        trusted, key = self._trusted, requests.requested_key(csr_pem)
        active = trusted.active
        leaf = self._issue(active, device_id, key, days, _CLIENT)
        return issued(pem_of(leaf, *trusted.chain(active)), leaf, active.sha256)

    def verify_old(self, certificate_pem: str, device_id: str) -> Issued:
        """What a certificate that was issued here says, expired or not.

        Raises:
            Invalid: it is not a certificate.
            Unauthenticated: it is not of an authority that is trusted, or another device's.
        """
        leaf = read_chain(certificate_pem)[0]
        for generation in self._trusted.trusted:
            if issued_by(leaf, generation.issuing):
                check_old(leaf, device_id)
                return issued(certificate_pem, leaf, generation.sha256)
        raise not_ours()

    def canaries(self) -> tuple[Canary, ...]:
        """Fresh canaries of every issuing authority; the bad ones are yet to be revoked."""
        now, trusted = self._clock(), self._trusted.trusted
        return tuple(self._canary(g) for g in trusted if not g.is_over(now))

    def write_crl(self, revoked: Iterable[RevokedSerial], others: str = "") -> None:
        """Replace ``crl.pem`` by lists of exactly ``revoked``, one of each issuing authority.

        Args:
            revoked: each serial is named by every list: which authority issued it is not kept.
            others: lists of other authorities, in PEM form.

        Raises:
            Unavailable: a list did not read back as it was written; the old file stands.
        """
        serials, now = by_serial(revoked), self._clock()
        with self._lock:
            lists = [
                make_crl(g.issuing, g.issuing_key, serials, now) for g in self._trusted.trusted
            ]
            write_atomic(self._folder / "crl.pem", "".join([*lists, others]).encode(), 0o644)

    def publish(self, revoked: Sequence[RevokedSerial], canaries: Sequence[Canary]) -> datetime:
        """Write the lists of who is revoked, and of the canaries; answers when to do it again.

        Raises:
            Unavailable: a list did not read back as it was written; the old file stands.
        """
        self.write_crl([*revoked, *(canary.bad for canary in canaries)])
        return self._clock() + timedelta(days=_CANARY_DAYS - 1)

    @property
    def by_command(self) -> bool:
        """Whether a program of the operator's issues to devices."""
        return False

    def roots(self) -> tuple[RootFacts, ...]:
        """The roots that are trusted, the oldest first."""
        return tuple(facts_of(g, active=g is self._trusted.active) for g in self._trusted.trusted)

    def problems(self) -> tuple[str, ...]:
        """What somebody should do something about."""
        return problems_of(self._trusted)

    def rotate(self) -> str:
        """Make a new root and its issuing authority; both roots are trusted until ``retire``.

        Returns:
            The new root's SHA-256.

        Raises:
            Conflict: a rotation is under way already.
        """
        with self._lock:
            if len(self._trusted.trusted) > 1:
                msg = "the authority is being rotated already"
                raise Conflict(msg, hint="`argosy ca status` says how far it is, `retire` ends it")
            old = self._trusted.active
            made = generations.make(self._folder, self._clock(), previous=old)
            self._accept(Generations((old, made)))
        self.settle()
        return made.sha256

    def retire(self) -> str:
        """Trust the old root no more; answers its SHA-256.

        Raises:
            Conflict: there is none but the active one.
        """
        with self._lock:
            if len(self._trusted.trusted) == 1:
                msg = "there is no old root to retire"
                raise Conflict(msg, hint="`argosy ca rotate` makes a new one first")
            old = self._trusted.trusted[0]
            self._accept(Generations((self._trusted.active,)))
        self.settle()
        return old.sha256

    def settle(self) -> None:
        """See that the bundle, and a revocation list of each issuing authority, are there."""
        bundle, path = self.pem.encode(), self._folder / "ca.pem"
        if not path.exists() or path.read_bytes() != bundle:
            write_atomic(path, bundle, 0o644)
        held = self._lists()
        if not all(any(signed(crl, g.issuing) for crl in held) for g in self._trusted.trusted):
            # What the old lists name is kept: a new authority's list begins with it.
            known = {e.serial_number: e.revocation_date_utc for crl in held for e in crl}
            self.write_crl(RevokedSerial(f"{serial:x}", at) for serial, at in known.items())

    def ensure_server(self, names: tuple[str, ...]) -> bool:
        """See to ``server.pem`` and ``server.key``: valid for long enough and for ``names``.

        Args:
            names: DNS names and IP addresses, all of which the certificate shall hold.

        Returns:
            Whether a new certificate was made.
        """
        anchor = self._trusted.anchor
        if anchor.is_over(self._clock()) and (self._folder / "server.pem").exists():
            # It ended too; but the platform must start, or nobody could rotate.
            return False
        sans = sorted((general_name(n) for n in names), key=repr)

        def issue(key: ec.EllipticCurvePublicKey) -> x509.Certificate:
            usage = ExtendedKeyUsageOID.SERVER_AUTH
            return self._issue(anchor, "argosy server", key, SERVER_DAYS, usage, sans)

        chain = self._trusted.chain(anchor)
        return keep_server(self._folder, anchor.issuing, chain, sans, self._clock(), issue)

    def _accept(self, new: Generations) -> None:
        generations.save(self._folder, new)
        self._trusted = new

    def _lists(self) -> tuple[x509.CertificateRevocationList, ...]:
        try:
            return read_crls((self._folder / "crl.pem").read_bytes())
        except (OSError, ValueError):
            return ()

    def _canary(self, generation: Generation) -> Canary:
        key = ec.generate_private_key(ec.SECP256R1())
        good, bad = (
            self._issue(generation, CANARY, key.public_key(), _CANARY_DAYS, _CLIENT)
            for _ in range(2)
        )
        tail = self._trusted.chain(generation)
        revoked = RevokedSerial(f"{bad.serial_number:x}", self._clock())
        return Canary(key, pem_of(good, *tail), pem_of(bad, *tail), revoked)

    def _issue(
        self,
        by: Generation,
        name: str,
        key: CertificatePublicKeyTypes,
        days: int,
        usage: x509.ObjectIdentifier,
        sans: list[x509.GeneralName] | None = None,
    ) -> x509.Certificate:
        now = self._clock()
        if by.is_over(now):
            msg = f"the issuing authority expired at {by.issuing.not_valid_after_utc:%Y-%m-%d}"
            raise Unavailable(msg, hint="make a new one: argosy ca rotate")
        until = min(now + timedelta(days=days), by.issuing.not_valid_after_utc)
        made = builder(
            distinguished_name(name), key, by.issuing.subject, by.issuing_key, (now - SKEW, until)
        ).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if sans is not None:
            made = made.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        return made.sign(by.issuing_key, hashes.SHA256())
