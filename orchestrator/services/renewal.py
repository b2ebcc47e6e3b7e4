"""The next certificate of a device: over its connection, or by proof of its old key."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from orchestrator.domain import enrollment as decisions
from orchestrator.domain.enrollment import Grant, Refusal
from orchestrator.domain.proof import is_signed_by
from orchestrator.errors import ArgosyError, Invalid, Unauthenticated, Unavailable
from orchestrator.services import actor, certificates
from orchestrator.services.fleet import found
from orchestrator.services.ports import Authority, Clock, Transaction, UnitOfWork
from orchestrator.services.refusals import refused
from schemas import PROTOCOL
from schemas.device import DeviceState
from schemas.enroll import RenewAsk, Renewed, RenewRequest, fingerprint, renewal_text

log = logging.getLogger(__name__)

_ATTEMPTS = 5
_PRUNE_EVERY = timedelta(hours=1)

SessionEnded = Callable[[str], bool]
"""Whether a revoked certificate, by its serial, opens no connection any more, nor has one open."""

Entitled = Callable[[Transaction], None]
"""Raises where whoever asks may not speak for the device (any more)."""


class RenewalService:
    """Renews certificates.

    The certificate that is replaced is not revoked: it ends by itself within two days or so,
    and until then a device whose disk lost the new one can still connect. A list that held
    them all would make the broker read it anew at every renewal of the fleet. But from the
    first birth with the newer one on, the older one renews nothing any more.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        authority: issues certificates, outside of transactions.
        certificate_days: how long a certificate is valid.
        grace: for how long after its end a certificate is still renewed by its key.
        session_ended: what the broker's gate knows.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        authority: Authority,
        *,
        certificate_days: int,
        grace: timedelta,
        session_ended: SessionEnded,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._authority = authority
        self._days = certificate_days
        self._grace = grace
        self._session_ended = session_ended
        self._pruned: datetime | None = None

    def over_mqtt(self, device_id: str, ask: RenewAsk) -> Renewed | None:
        """Answer a device that asks over its own connection.

        None to one that is not there, waits for approval or is revoked: whatever such a
        device still sends is ignored.

        Raises:
            Unavailable: the database does not answer; or the connection may yet be that of
                a certificate which was revoked when another took the device's place.
        """
        with self._uow.read() as tx:
            if device_id not in tx.devices.taking_part([device_id]):
                return None
        try:
            _check_protocol(ask.protocol)
            return self._renew(device_id, ask.csr_pem, "connection", self._connected(device_id))
        except Unavailable:
            raise
        except ArgosyError as error:
            log.warning("%s gets no new certificate: %s", device_id, error)
            return Renewed(csr_sha256=certificates.request_digest(ask.csr_pem), error=error.detail)

    def by_proof(self, request: RenewRequest) -> Renewed:
        """Answer a device that proves its old key, because its certificate has expired.

        Raises:
            CsrInvalid: what is wrong with the request for the new one.
            Unauthenticated: the certificate is not one of ours for that device, or the proof
                is not by its key.
            Forbidden, Revoked: that certificate speaks for the device no more.
        """
        _check_protocol(request.protocol)
        try:
            old = self._authority.verify_old(request.certificate_pem, request.device)
        except Unavailable:
            raise
        except ArgosyError as error:
            raise Unauthenticated(error.detail, hint=error.hint) from error
        signed_at = request.model_dump(mode="json")["signed_at"]
        text = renewal_text(request.device, request.csr_pem, signed_at)
        if not is_signed_by(request.certificate_pem, text, request.signature):
            msg = "the request is not signed by the key of the old certificate"
            raise Unauthenticated(msg)

        def entitled(tx: Transaction) -> None:
            device = found(tx, request.device)
            if device.state is DeviceState.REVOKED:
                raise refused(Refusal.DEVICE_REVOKED, device=device)
            held = certificates.facts(tx, device.id)
            why = decisions.proven(old.serial, held, self._clock(), self._grace)
            if why is not None:
                raise refused(why, device=device)

        return self._renew(request.device, request.csr_pem, "old key", entitled)

    def tick(self) -> int:
        """Forget certificates that renew nothing any more; how many. At most once an hour."""
        now = self._clock()
        if self._pruned is not None and self._pruned <= now < self._pruned + _PRUNE_EVERY:
            return 0
        with self._uow() as tx:
            count = tx.devices.prune_certificates(now - self._grace)
        self._pruned = now
        return count

    def _connected(self, device_id: str) -> Entitled:
        """Nobody knows by which of a device's certificates a connection was opened."""

        def entitled(tx: Transaction) -> None:
            revoked = tx.devices.revoked_of(device_id, self._clock())
            if not all(self._session_ended(one.serial) for one in revoked):
                msg = f"whoever was {device_id} before may still be connected"
                raise Unavailable(msg, hint="it asks again; see `argosy ca status`")

        return entitled

    def _renew(self, device_id: str, csr_pem: str, how: str, entitled: Entitled) -> Renewed:
        key = self._authority.spki_of_csr(csr_pem)
        for _ in range(_ATTEMPTS):
            with self._uow.read() as tx:
                entitled(tx)
                grant, pem = self._look(tx, device_id, key, csr_pem)
            if grant is Grant.REPEAT:
                return self._renewed(csr_pem, pem)
            issued = self._authority.issue_device(csr_pem, device_id, self._days)
            with actor.acting(actor.device(device_id)), self._uow() as tx:
                entitled(tx)
                if self._look(tx, device_id, key, csr_pem)[0] is not grant:
                    continue
                now = self._clock()
                certificates.hold_key(tx, device_id, key, None, now)
                device = found(tx, device_id, lock=True)
                certificates.store(tx, device, issued, csr_pem, now)
                told = {"how": how, "fingerprint": fingerprint(key), "serial": issued.serial}
                tx.audit.add("device.renew", device_id, told)
            return self._renewed(csr_pem, issued.pem)
        msg = "the device keeps changing"
        raise Unavailable(msg, hint="try again")

    def _look(self, tx: Transaction, device_id: str, key: str, csr_pem: str) -> tuple[Grant, str]:
        """What is to be done, and the certificate that is given again."""
        device, owner = found(tx, device_id), tx.devices.key(key)
        held, now = certificates.facts(tx, device_id), self._clock()
        digest = certificates.request_digest(csr_pem)
        grant = decisions.renew(
            certificates.holder(tx, device),
            key,
            owner.device_id if owner else None,
            held,
            digest,
            now,
        )
        if isinstance(grant, Refusal):
            raise refused(grant, device=device)
        again = decisions.repeated(held, digest, now)
        record = tx.devices.certificate(again.serial) if again else None
        return grant, record.pem if record else ""

    def _renewed(self, csr_pem: str, certificate_pem: str) -> Renewed:
        return Renewed(
            csr_sha256=certificates.request_digest(csr_pem),
            certificate_pem=certificate_pem,
            ca_pem=self._authority.pem,
        )


def _check_protocol(spoken: int) -> None:
    if spoken != PROTOCOL:
        msg = f"the device speaks protocol {spoken}, this platform {PROTOCOL}"
        raise Invalid(msg, hint="install the same version of argosy on both")
