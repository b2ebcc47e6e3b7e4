"""Renewal: asks for the next certificate, keeps it beside the present one, and tries it.

What decides is in ``edge_client.renewal``. Used from the thread that decides; a try by HTTPS
runs in one of its own and ends with an event. Nothing here ever stops inference: what fails is
tried again later, and told by ``argosy-edge status``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from edge_client import certificates, renewal, requested
from edge_client.errors import EdgeError, RefusedError, RenewalError
from edge_client.identity import (
    Identity,
    Material,
    add_generation,
    fall_back,
    read_back,
    settle,
)
from edge_client.refusal import Refusal
from edge_client.renewal import Moment, Way, plan_of
from edge_client.renewal_https import renew_by_https
from edge_client.requested import Note
from edge_client.settings import Home
from schemas.enroll import RenewAsk, Renewed, RenewNow
from schemas.errors import Code

MAX_RENEW_NOW_BYTES = 1024
MAX_RENEWED_BYTES = 256 * 1024
STALE = dt.timedelta(days=1)
"""A request that was not answered for so long is made anew, with a new key."""

_FINAL = frozenset({Code.REVOKED, Code.REJECTED, Code.FORBIDDEN, Code.UNAUTHENTICATED})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RenewalEnded:
    """A try by HTTPS is over. safe: nobody on the way can have changed the answer."""

    renewed: Renewed | None
    safe: bool
    error: EdgeError | None = None


class Renewer:
    """Keeps one device's certificate fresh.

    Args:
        home: the device's.
        identity: what counts now.
        moment: tells how things are.
        ask: sends a question over MQTT; False when there is no connection.
        post: takes the end of a try by HTTPS, from another thread.
        adopt: has the transport connect anew with another certificate.
    """

    def __init__(
        self,
        home: Home,
        identity: Identity,
        *,
        moment: Callable[[], Moment],
        ask: Callable[[RenewAsk], bool],
        post: Callable[[RenewalEnded], None],
        adopt: Callable[[Identity], None],
    ) -> None:
        self._home, self._moment = home, moment
        self._ask, self._post, self._adopt = ask, post, adopt
        self.identity = identity
        self.problem: str | None = None
        self._clock_wrong = False
        self._plan = plan_of(identity)
        self._kept()

    @property
    def due(self) -> dt.datetime:
        """When the next renewal is planned."""
        return self._plan.due

    def look(self) -> None:
        """Ask, if it is time to."""
        at = self._moment()
        if renewal.overdue(self._plan, at.steady):
            self._failed("the server did not answer the question for a new certificate")
        trouble = renewal.clock_trouble(self._plan, at.date)
        if trouble is not None:
            self._tell(trouble)
        elif self._clock_wrong:
            self.problem = None
        self._clock_wrong = trouble is not None
        way = renewal.decide(self._plan, at)
        if way is None:
            return
        try:
            _, note = self._request(at.date)
            self._send(way, note.csr_pem, at)
        except (EdgeError, OSError) as error:
            self._failed(str(error))

    def wanted(self, payload: bytes) -> None:
        """The server asks for a renewal."""
        if len(payload) > MAX_RENEW_NOW_BYTES:
            return
        try:
            within = RenewNow.model_validate_json(payload).within_seconds
        except ValidationError:
            log.warning("a malformed wish for a renewal was ignored")
            return
        self._plan = renewal.wanted(self._plan, within, self._moment().steady)

    def answered(self, payload: bytes) -> None:
        """An answer over MQTT, also a late one; one to another question is ignored."""
        if len(payload) > MAX_RENEWED_BYTES:
            return
        try:
            renewed = Renewed.model_validate_json(payload)
        except ValidationError:
            log.warning("a malformed answer to a renewal was ignored")
            return
        self._take(renewed, safe=True, way=Way.MQTT)

    def ended(self, event: RenewalEnded) -> None:
        """A try by HTTPS is over."""
        if event.renewed is not None:
            self._take(event.renewed, safe=event.safe, way=Way.HTTPS)
            return
        error = event.error
        final = isinstance(error, RefusedError) and error.code in _FINAL
        self._failed(f"no new certificate: {error}", for_good=final)

    def connected(self, serial: str) -> None:
        """The broker accepted a certificate."""
        if serial != self.identity.seen.serial or not self.identity.unproven:
            return
        try:
            self.identity = settle(self._home, self.identity)
        except (EdgeError, OSError) as error:
            log.warning("the former certificate is kept: %s", error)
            return
        self._plan = replace(self._plan, failures=0)
        log.info("the new certificate is accepted; it is valid until %s", self.identity.life.end)

    def disconnected(self, refusal: Refusal | None) -> None:
        """The connection is gone, or was refused; a new certificate may be to blame."""
        if self._plan.way is Way.MQTT:
            self._failed("the connection was lost before the new certificate came")
        if refusal is None or not self.identity.unproven:
            return
        older = self._older()
        if older is None:
            if self._plan.way is None:
                self._failed(f"the broker does not take the new certificate ({refusal})")
            return
        self.identity = older
        self._plan = replace(plan_of(older), failures=self._plan.failures)
        self._failed(f"the broker does not take the new certificate ({refusal}); back to the old")
        self._adopt(older)

    def _older(self) -> Identity | None:
        """The certificate before this one, made to count again; None where it is over."""
        number = self.identity.record.fallback
        if number is None:
            return None
        try:
            # Looked at before the switch, which removes the new one.
            record = self.identity.record.model_copy(update={"fallback": None})
            older = read_back(self._home, number, record)
        except (EdgeError, OSError):
            return None
        if self._moment().date >= older.life.end:
            return None
        try:
            return fall_back(self._home, self.identity)
        except (EdgeError, OSError) as error:
            log.warning("%s", error)
        return older

    def _request(self, now: dt.datetime) -> tuple[ec.EllipticCurvePrivateKey, Note]:
        """The request under way, or a new one; on the disk before it is sent."""
        kept = self._kept()
        if kept is not None and abs(now - kept[1].began) < STALE:
            return kept
        key = certificates.new_key()
        note = Note(csr_pem=certificates.request(key), began=now)
        requested.keep(self._home.renewal, key, note)
        return key, note

    def _kept(self) -> tuple[ec.EllipticCurvePrivateKey, Note] | None:
        """The request under way; one whose certificate is in use already is over."""
        kept = requested.kept(self._home.renewal, Note)
        if kept is None or certificates.key_pem(kept[0]) != self.identity.key.read_bytes():
            return kept
        requested.forget(self._home.renewal)
        return None

    def _send(self, way: Way, csr_pem: str, at: Moment) -> None:
        if way is Way.MQTT and not self._ask(RenewAsk(csr_pem=csr_pem)):
            return
        self._plan = renewal.asked(self._plan, way, at.steady)
        log.info("asking for a new certificate (%s)", way)
        if way is Way.HTTPS:
            work = threading.Thread(
                target=self._by_https,
                args=(self.identity, csr_pem, at.date),
                name="renewal",
                daemon=True,
            )
            work.start()

    def _by_https(self, identity: Identity, csr_pem: str, now: dt.datetime) -> None:
        try:
            renewed, safe = renew_by_https(identity, csr_pem, now)
            self._post(RenewalEnded(renewed, safe))
        except EdgeError as error:
            self._post(RenewalEnded(None, safe=False, error=error))
        except Exception as error:  # whatever it was, the try is over
            log.exception("a renewal ended by a fault")
            self._post(RenewalEnded(None, safe=False, error=RenewalError(str(error))))

    def _take(self, renewed: Renewed, *, safe: bool, way: Way) -> None:
        """Keep a new certificate, if it is one, and have it tried."""
        kept = self._kept()
        if kept is None or _digest(kept[1].csr_pem) != renewed.csr_sha256:
            if way is self._plan.way is Way.HTTPS:  # the one answer that there will be
                self._failed("the server answered another question for a certificate")
            return
        try:
            new = self._checked(renewed, kept[0], safe=safe)
            self.identity = add_generation(self._home, self.identity, new)
        except (EdgeError, OSError) as error:
            self._failed(f"no new certificate: {error}")
            return
        requested.forget(self._home.renewal)
        # One that the broker then refuses is no success: the next try waits longer.
        self._plan = replace(plan_of(self.identity), failures=self._plan.failures)
        self.problem = None
        log.info("a new certificate is here; connecting with it")
        self._adopt(self.identity)

    def _checked(
        self, renewed: Renewed, key: ec.EllipticCurvePrivateKey, *, safe: bool
    ) -> Material:
        if renewed.certificate_pem is None:
            raise RenewalError(renewed.error or "the server gives none, and does not say why")
        present = certificates.read_certificates(self.identity.ca.read_bytes(), "the present roots")
        roots = _roots(renewed, present, safe=safe)
        chain = certificates.read_certificates(renewed.certificate_pem.encode(), "the answer")
        certificates.check_issued(
            chain,
            roots,
            key=key,
            device=self.identity.record.device,
            now=self._moment().date,
        )
        return Material(
            key_pem=certificates.key_pem(key),
            certificate_pem=renewed.certificate_pem.encode(),
            ca_pem=certificates.to_pem(roots),
        )

    def _failed(self, why: str, *, for_good: bool = False) -> None:
        self._plan = renewal.failed(self._plan, self._moment(), for_good=for_good)
        self._tell(why)

    def _tell(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("%s", problem)
        self.problem = problem


def _roots(
    renewed: Renewed, present: list[x509.Certificate], *, safe: bool
) -> list[x509.Certificate]:
    """The roots from now on: the server's list, if nobody on the way can have changed it."""
    if renewed.ca_pem is None or not safe:
        return present
    roots = certificates.read_certificates(renewed.ca_pem.encode(), "the server's list of roots")
    if not all(certificates.is_authority(root) for root in roots):
        msg = "the server's list of roots holds a certificate that is no authority"
        raise RenewalError(msg)
    return roots


def _digest(csr_pem: str) -> str:
    return hashlib.sha256(csr_pem.encode()).hexdigest()
