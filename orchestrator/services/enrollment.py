"""Enrollment: a join token and a certificate request become a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from orchestrator.domain import enrollment as decisions
from orchestrator.domain.enrollment import Grant, Refusal, TokenFacts
from orchestrator.errors import Invalid, TokenInvalid, TokenSpent, Unavailable
from orchestrator.services import actor, certificates, tokens
from orchestrator.services.fleet import announce, end_executions
from orchestrator.services.ports import (
    Authority,
    Clock,
    IssuedCertificate,
    Signer,
    Transaction,
    UnitOfWork,
)
from orchestrator.services.records import DeviceRecord, TokenRecord
from orchestrator.services.refusals import refused
from schemas import PROTOCOL
from schemas.device import DeviceState, Presence
from schemas.enroll import (
    BrokerAddress,
    Enrolled,
    EnrollPending,
    EnrollRequest,
    JoinToken,
    fingerprint,
)
from schemas.ids import new_id

RETRY_SECONDS = 5.0
"""How often a device asks whether it was approved."""

_WITH_CERTIFICATE = frozenset({Grant.CREATE, Grant.REPLACE, Grant.ISSUE})
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request whose form was judged. key: SHA-256 of its public key."""

    request: EnrollRequest
    given: JoinToken
    key: str
    root_json: str


@dataclass(frozen=True, slots=True)
class _Look:
    """What a request leads to now. device: that has the key or whose place it takes."""

    grant: Grant
    token: TokenRecord
    device: DeviceRecord | None

    def agrees(self, other: _Look) -> bool:
        """Whether both lead to the same for the same device."""
        ids = [look.device and look.device.id for look in (self, other)]
        return self.grant is other.grant and ids[0] == ids[1]


class EnrollmentService:
    """Lets devices in.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        authority: issues certificates, outside of transactions.
        signer: knows the roots that join tokens pin.
        broker: what devices are told to connect to.
        certificate_days: how long a certificate is valid.
        heartbeat_seconds: how often a device says that it is there.
        grace: for how long after its end a certificate is still renewed by its key.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        authority: Authority,
        signer: Signer,
        *,
        broker: BrokerAddress,
        certificate_days: int,
        heartbeat_seconds: float,
        grace: timedelta,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._authority = authority
        self._signer = signer
        self._broker = broker
        self._days = certificate_days
        self._heartbeat = heartbeat_seconds
        self._grace = grace

    def enroll(self, request: EnrollRequest) -> Enrolled | EnrollPending:
        """Spend a use of a join token on a device, or answer again what was answered before.

        The use is spent and the device made in one transaction, so a token never yields
        more devices than it has uses; and only if the decision is still the one that the
        certificate was issued for.

        Raises:
            TokenInvalid, TokenExpired, TokenSpent: what is wrong with the token.
            CsrInvalid, Conflict: what is wrong with the certificate request or its key.
            Rejected, Revoked: the device was turned away, or shut out.
        """
        asked = self._judge(request)
        for _ in range(_ATTEMPTS):
            with self._uow.read() as tx:
                look = self._look(tx, asked)
            if look.grant not in _WITH_CERTIFICATE and look.grant is not Grant.CREATE_PENDING:
                return self._repeat(asked, look)
            device_id = look.device.id if look.device else new_id("dev")
            issued = None
            if look.grant in _WITH_CERTIFICATE:
                issued = self._authority.issue_device(request.csr_pem, device_id, self._days)
            with actor.acting(actor.device(device_id)), self._uow() as tx:
                fresh = self._look(tx, asked)
                if fresh.agrees(look):
                    return self._apply(tx, asked, fresh, device_id, issued)
        msg = "the device or its token keeps changing"
        raise Unavailable(msg, hint="try again")

    def _judge(self, request: EnrollRequest) -> _Asked:
        if request.protocol != PROTOCOL:
            msg = f"the device speaks protocol {request.protocol}, this platform {PROTOCOL}"
            raise Invalid(msg, hint="install the same version of argosy on both")
        given = tokens.parse(request.token)
        with self._uow.read() as tx:
            tokens.presented(tx, given)  # before the costly look at a request of anybody's
        root = self._signer.root_of(given.root_sha256)
        if root is None or not self._authority.root_of(given.ca_sha256):
            msg = "the join token pins a root that this platform does not have, or no longer"
            raise TokenInvalid(msg, hint=tokens.NEW)
        return _Asked(request, given, self._authority.spki_of_csr(request.csr_pem), root)

    def _look(self, tx: Transaction, asked: _Asked) -> _Look:
        token = tokens.presented(tx, asked.given)
        held = tx.devices.key(asked.key)
        device = tx.devices.get(held.device_id if held else token.device_id or "")
        facts = TokenFacts(
            id=token.id,
            revoked=token.revoked,
            expires_at=token.expires_at,
            uses_left=token.max_uses - token.uses,
            approval=token.approval,
            keys=token.keys,
            device=token.device_id,
        )
        holder = certificates.holder(tx, device, held.token_id) if held and device else None
        grant = decisions.enroll(facts, asked.key, holder, self._clock(), self._grace)
        if isinstance(grant, Refusal):
            raise refused(grant, token=token, device=device)
        return _Look(grant, token, device)

    def _repeat(self, asked: _Asked, look: _Look) -> Enrolled | EnrollPending:
        device = _there(look.device)
        if look.grant is Grant.WAIT:
            return _pending(device.id, asked.key)
        with self._uow.read() as tx:
            record = tx.devices.certificate(device.certificate_serial or "")
        if record is None or not record.pem:
            msg = f"the certificate of {device.id} was issued before its text was kept"
            raise Unavailable(
                msg, hint=f"on the platform: `argosy token create --device {device.id}`"
            )
        return self._enrolled(asked, device, record.pem)

    def _apply(
        self,
        tx: Transaction,
        asked: _Asked,
        look: _Look,
        device_id: str,
        issued: IssuedCertificate | None,
    ) -> Enrolled | EnrollPending:
        now, token = self._clock(), look.token
        if look.grant is not Grant.ISSUE and not tx.devices.spend(token.id, now):
            msg = f"join token {token.id} was used up meanwhile"
            raise TokenSpent(msg)
        match look.grant:
            case Grant.REPLACE:
                device = self._replace(tx, asked, look)
            case Grant.CREATE | Grant.CREATE_PENDING:
                device = self._create(tx, asked, look, device_id)
            case _:
                device = _there(look.device)
        certificates.hold_key(tx, device.id, asked.key, token.id, now)
        if issued is not None:
            device = certificates.store(tx, device, issued, asked.request.csr_pem, now)
        tx.audit.add("device.enroll", device.id, _told(look, asked, issued))
        announce(tx, device, now)
        if issued is None:
            return _pending(device.id, asked.key)
        return self._enrolled(asked, device, issued.pem)

    def _create(self, tx: Transaction, asked: _Asked, look: _Look, device_id: str) -> DeviceRecord:
        pending = look.grant is Grant.CREATE_PENDING
        device = DeviceRecord(
            id=device_id,
            device_class=look.token.device_class,
            tags=look.token.tags,
            state=DeviceState.PENDING if pending else DeviceState.ACTIVE,
            hardware=asked.request.hardware,
            token_id=look.token.id,
            spki_sha256=asked.key,
            enrolled_at=self._clock(),
        )
        tx.devices.add(device)
        return device

    def _replace(self, tx: Transaction, asked: _Asked, look: _Look) -> DeviceRecord:
        """The device's place for a new key: what it was and its sequence stay."""
        now, device = self._clock(), _there(look.device)
        certificates.revoke_all(tx, device.id, "enrolled anew", now)
        # Its journal is gone, and with it the number of its last report.
        end_executions(tx, device.id, "the device was enrolled anew", now)
        device = replace(
            device,
            state=DeviceState.ACTIVE,
            presence=Presence.NEVER,
            boot=None,
            session=0,
            hardware=asked.request.hardware,
            active=(),
            token_id=look.token.id,
            spki_sha256=asked.key,
            seen_certificate=None,
            turns=(),
            clone_suspected_at=None,
            revoked_at=None,
            revoke_reason="",
        )
        tx.devices.save(device)
        return device

    def _enrolled(self, asked: _Asked, device: DeviceRecord, certificate_pem: str) -> Enrolled:
        return Enrolled(
            device=device.id,
            device_class=device.device_class,
            certificate_pem=certificate_pem,
            ca_pem=self._authority.pem,
            root_json=asked.root_json,
            broker=self._broker,
            heartbeat_seconds=self._heartbeat,
        )


def _pending(device_id: str, key: str) -> EnrollPending:
    return EnrollPending(
        device=device_id, fingerprint=fingerprint(key), retry_seconds=RETRY_SECONDS
    )


def _there(device: DeviceRecord | None) -> DeviceRecord:
    if device is None:
        msg = "the device of a key or a token is not there"
        raise Unavailable(msg, hint="see `argosy doctor`")
    return device


def _told(look: _Look, asked: _Asked, issued: IssuedCertificate | None) -> dict[str, object]:
    """What the audit log says of it."""
    told: dict[str, object] = {
        "how": look.grant.value,
        "token": look.token.id,
        "fingerprint": fingerprint(asked.key),
        "class": look.token.device_class,
    }
    return told | ({"serial": issued.serial} if issued else {})
