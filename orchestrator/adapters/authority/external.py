"""An authority that is run elsewhere, behind a program of the operator's.

``CMD issue DEVICE_ID DAYS`` gets a certificate request (PEM) on its standard input and writes
the certificate and the authorities between it and the root (PEM) to its standard output.
``CMD revoke SERIAL`` (hex) revokes, and may be repeated; it ends with 3 when the certificate
is not its own. ``CMD crl`` writes the revocation lists (PEM). Whatever it says is checked.

The platform's own authority stays beside it: for the server's certificate, which devices pin,
and for the canaries. So a broker trusts the roots of both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import NoReturn

from cryptography import x509

from orchestrator.adapters.authority import requests
from orchestrator.adapters.authority.anchors import facts_of
from orchestrator.adapters.authority.chains import (
    is_for_clients,
    may_issue,
    path_to,
    read_chain,
)
from orchestrator.adapters.authority.checks import check_device_id, check_old, not_ours
from orchestrator.adapters.authority.command import run_limited
from orchestrator.adapters.authority.crl import MAX_CRL_BYTES, read_crls, serials_of, signed
from orchestrator.adapters.authority.embedded import CertificateAuthority
from orchestrator.adapters.authority.generations import Generations
from orchestrator.adapters.authority.issued import Canary, Issued, RevokedSerial, issued
from orchestrator.adapters.authority.parts import (
    PEM,
    SKEW,
    common_name,
    pem_of,
    sha256_of,
    spki_sha256,
)
from orchestrator.clock import utc_now
from orchestrator.errors import ArgosyError, Unauthenticated, Unavailable
from orchestrator.services.ports.authority import RootFacts
from schemas.enroll import MAX_CHAIN_BYTES

log = logging.getLogger(__name__)

COMMAND_SECONDS = 20.0
NOT_ITS_OWN = 3
_SLACK = timedelta(hours=25)
"""By how much a certificate may live longer than was asked: some count in whole days."""

_SHORTEST_REST = timedelta(seconds=30)


class CommandAuthority(CertificateAuthority):
    """Issues through a program. Arguments besides those of ``CertificateAuthority``.

    Args:
        command: the program.
        anchors: its roots, and authorities below them, as they came from a PEM file.
        seconds: how long the program may take.
    """

    def __init__(
        self,
        folder: Path,
        trusted: Generations,
        clock: Callable[[], datetime] = utc_now,
        *,
        command: Path,
        anchors: Sequence[x509.Certificate],
        seconds: float = COMMAND_SECONDS,
    ) -> None:
        super().__init__(folder, trusted, clock)
        self._command = command
        self._seconds = seconds
        self._roots = tuple(c for c in anchors if c.issuer == c.subject)
        self._between = tuple(c for c in anchors if c.issuer != c.subject)
        self._not_its_own: set[str] = set()
        self._fault: str | None = None

    @property
    def pem(self) -> str:
        """The roots to trust: ours, then the program's."""
        return super().pem + pem_of(*self._roots)

    @property
    def by_command(self) -> bool:
        """Whether a program of the operator's issues to devices."""
        return True

    def root_of(self, sha256: str) -> bool:
        """Whether that root is still trusted."""
        return super().root_of(sha256) or any(sha256_of(r) == sha256 for r in self._roots)

    def roots(self) -> tuple[RootFacts, ...]:
        """The roots that are trusted, ours first."""
        own = tuple(replace(facts, active=False) for facts in super().roots())
        return own + tuple(facts_of(root, self._between) for root in self._roots)

    def problems(self) -> tuple[str, ...]:
        """What somebody should do something about."""
        return super().problems() + ((self._fault,) if self._fault else ())

    def issue_device(self, csr_pem: str, device_id: str, days: int) -> Issued:
        """Have the program issue, and check what it did.

        Raises:
            CsrInvalid: the request is refused here already.
            Unavailable: the program fails, or its certificate is not what was asked for.
        """
        check_device_id(device_id)
        key = requests.requested_key(csr_pem)
        wanted, now = spki_sha256(key), self._clock()
        answer = self._run(("issue", device_id, str(days)), csr_pem.encode(), MAX_CHAIN_BYTES)
        try:
            leaf, *between = read_chain(answer.decode("ascii"))
        except (ArgosyError, UnicodeError):
            self._refuse("its answer is no chain of certificates in PEM form")
        path = path_to(leaf, [*between, *self._between], self._roots)
        if path is None:
            self._refuse("the certificate does not lead to a root of ARGOSY_CA_ROOTS")
        if spki_sha256(leaf.public_key()) != wanted:
            self._refuse("the certificate is for another key than the request's")
        if common_name(leaf) != device_id:
            self._refuse(f"the certificate's common name is not {device_id} alone")
        if not is_for_clients(leaf):
            self._refuse("the certificate is not one of a TLS client (extended key usage)")
        if not leaf.not_valid_before_utc <= now + SKEW or not now < leaf.not_valid_after_utc:
            self._refuse(f"the certificate is not valid now, {now:%Y-%m-%d %H:%M} UTC")
        if leaf.not_valid_after_utc > now + timedelta(days=days) + _SLACK:
            self._refuse(f"the certificate is valid for longer than {days} days")
        self._check_listed(path[0])
        return issued(pem_of(leaf, *path[:-1]), leaf, sha256_of(path[-1]))

    def verify_old(self, certificate_pem: str, device_id: str) -> Issued:
        """As ``CertificateAuthority.verify_old``, for certificates of the program too."""
        try:
            return super().verify_old(certificate_pem, device_id)
        except Unauthenticated:
            leaf, *between = read_chain(certificate_pem)
            path = path_to(leaf, [*between, *self._between], self._roots)
            if path is None:
                raise not_ours() from None
            check_old(leaf, device_id)
            return issued(certificate_pem, leaf, sha256_of(path[-1]))

    def publish(self, revoked: Sequence[RevokedSerial], canaries: Sequence[Canary]) -> datetime:
        """Have the program revoke, and put its lists beside ours; answers when it is due again.

        Where the program fails, its last lists stay, and the platform's own are written.

        Raises:
            Unavailable: there are no lists of the program to fall back to, or they lack somebody.
        """
        serials = [*revoked, *(canary.bad for canary in canaries)]
        try:
            lists = self._fresh_lists(revoked)
            self._fault = None
        except Unavailable as error:
            self._fault = error.detail
            log.warning("%s; its last lists are kept", error.detail)
            lists = [crl for crl in self._lists() if self._issuer_of(crl) is not None]
            if not lists:
                raise
            if self._missing(revoked, lists):
                # The platform's own lists say nothing to a broker of the program's devices.
                self.write_crl(serials, _text(lists))
                raise
        self.write_crl(serials, _text(lists))
        now = self._clock()
        ends = [c.next_update_utc for c in lists if c.next_update_utc is not None]
        rest = min((end - now for end in ends), default=timedelta(days=1)) / 2
        return now + (_SHORTEST_REST if self._fault else max(rest, _SHORTEST_REST))

    def settle(self) -> None:
        """As ``CertificateAuthority.settle``; lists of the program are kept."""
        kept = [c for c in self._lists() if self._issuer_of(c) is not None]
        super().settle()
        held = self._lists()
        if any(c not in held for c in kept):
            known = {e.serial_number: e.revocation_date_utc for crl in held for e in crl}
            self.write_crl((RevokedSerial(f"{s:x}", at) for s, at in known.items()), _text(kept))

    def _fresh_lists(
        self, revoked: Sequence[RevokedSerial]
    ) -> list[x509.CertificateRevocationList]:
        lists = self._read_lists()
        missing = self._missing(revoked, lists)
        for one in missing:
            if self._revoke(one.serial):
                continue
            self._not_its_own.add(one.serial)
        if missing:
            lists = self._read_lists()
        left = self._missing(revoked, lists)
        if left:
            self._refuse(f"its lists do not name {len(left)} certificates that it revoked")
        return lists

    def _missing(
        self, revoked: Sequence[RevokedSerial], lists: Sequence[x509.CertificateRevocationList]
    ) -> list[RevokedSerial]:
        named = {serial for crl in lists for serial in serials_of(crl)}
        return [
            r
            for r in revoked
            if int(r.serial, 16) not in named and r.serial not in self._not_its_own
        ]

    def _revoke(self, serial: str) -> bool:
        try:
            self._run(("revoke", serial), b"", MAX_CHAIN_BYTES)
        except _NotItsOwnError:
            return False
        return True

    def _read_lists(self) -> list[x509.CertificateRevocationList]:
        text = self._run(("crl",), b"", MAX_CRL_BYTES)
        try:
            lists = list(read_crls(text))
        except ValueError:
            self._refuse("its answer is no revocation list in PEM form")
        now = self._clock()
        for crl in lists:
            issuer = self._issuer_of(crl)
            if issuer is None:
                self._refuse("a revocation list is of nobody in ARGOSY_CA_ROOTS")
            if crl.next_update_utc is not None and crl.next_update_utc <= now:
                self._refuse(f"a revocation list ended at {crl.next_update_utc:%Y-%m-%d %H:%M}")
        if not lists:
            self._refuse("its answer holds no revocation list")
        return lists

    def _issuer_of(self, crl: x509.CertificateRevocationList) -> x509.Certificate | None:
        return next(
            (c for c in (*self._between, *self._roots) if may_issue(c, 0) and signed(crl, c)), None
        )

    def _check_listed(self, issuing: x509.Certificate) -> None:
        """See that there is a list of who issued: else the broker refuses the device."""
        for read in (self._lists, self._read_lists):
            if any(signed(crl, issuing) for crl in read()):
                return
        who = issuing.subject.rfc4514_string()
        self._refuse(f"there is no revocation list of {who}, who issued the certificate")

    def _run(self, arguments: Sequence[str], given: bytes, limit: int) -> bytes:
        verb = arguments[0]
        try:
            done = run_limited(
                (str(self._command), *arguments), given, limit=limit, seconds=self._seconds
            )
        except OSError as error:
            self._refuse(f"it cannot be run: {error.strerror or error}")
        if done.code == NOT_ITS_OWN and verb == "revoke":
            raise _NotItsOwnError(arguments[1])
        if done.stopped is not None:
            self._refuse(f"`{verb}` {done.stopped}")
        if done.code != 0:
            why = f": {done.last_words}" if done.last_words else ""
            self._refuse(f"`{verb}` ended with {done.code}{why}")
        return done.output

    def _refuse(self, what: str) -> NoReturn:
        msg = f"the external authority {self._command}: {what}"
        raise Unavailable(msg, hint="what it must do stands in docs/certificates.md")


class _NotItsOwnError(Exception):
    """The program did not issue that certificate."""


def _text(lists: Sequence[x509.CertificateRevocationList]) -> str:
    return "".join(crl.public_bytes(PEM).decode() for crl in lists)
