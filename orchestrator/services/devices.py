"""Join tokens, enrollment, presence."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from orchestrator.errors import Invalid, NotFound, TokenExpired, TokenInvalid, TokenSpent
from orchestrator.services import keys
from orchestrator.services.ports import Authority, Clock, Signer, Transaction, UnitOfWork
from orchestrator.services.records import DeviceRecord, TokenRecord
from schemas import PROTOCOL
from schemas.device import Birth, Death, DeviceState, DeviceView, Presence
from schemas.enroll import (
    BrokerAddress,
    Enrolled,
    EnrollRequest,
    JoinToken,
    TokenCreated,
    TokenRequest,
    TokenView,
)
from schemas.ids import new_id
from schemas.rollout import DEVICE_TERMINAL

_MISSED = 3


class DeviceService:
    """What the API and the gateway do with devices.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        authority: issues certificates.
        signer: its root is pinned by join tokens.
        broker: what devices are told to connect to.
        certificate_days: how long a certificate is valid.
        heartbeat_seconds: how often a device says that it is there.
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
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._authority = authority
        self._signer = signer
        self._broker = broker
        self._days = certificate_days
        self._heartbeat = heartbeat_seconds

    def create_token(self, request: TokenRequest) -> TokenCreated:
        """Make a join token; the answer is the only place that holds it."""
        now, secret = self._clock(), secrets.token_urlsafe(32)
        record = TokenRecord(
            id=new_id("tok"),
            secret_hash=keys.digest(secret),
            device_class=request.device_class or "default",
            tags=request.tags,
            max_uses=request.max_uses,
            expires_at=now + timedelta(seconds=request.ttl_seconds),
            created_at=now,
        )
        with self._uow() as tx:
            tx.devices.add_token(record)
        token = JoinToken(
            record.id, secret, self._authority.ca_sha256(), self._signer.root_sha256()
        )
        return TokenCreated(token=str(token), view=token_view(record))

    def tokens(self, before: str | None, limit: int) -> Sequence[TokenView]:
        """Join tokens, newest first."""
        with self._uow.read() as tx:
            return [token_view(record) for record in tx.devices.tokens(before, limit)]

    def enroll(self, request: EnrollRequest) -> Enrolled:
        """Spend a use of a join token on a new device.

        The use is spent and the device made in one transaction, so a token never
        yields more devices than it has uses.

        Raises:
            TokenInvalid, TokenExpired, TokenSpent: what is wrong with the token.
            CsrInvalid: what is wrong with the certificate request.
        """
        if request.protocol != PROTOCOL:
            msg = f"the device speaks protocol {request.protocol}, this platform {PROTOCOL}"
            raise Invalid(msg, hint="install the same version of argosy on both")
        with self._uow.read() as tx:
            token = self._usable(tx, request.token)
        device_id = new_id("dev")
        issued = self._authority.issue_device(request.csr_pem, device_id, days=self._days)
        now = self._clock()
        with self._uow() as tx:
            if not tx.devices.spend(token.id, now):
                self._usable(tx, request.token)
                raise _spent(token)
            tx.devices.add(
                DeviceRecord(
                    id=device_id,
                    device_class=token.device_class,
                    tags=token.tags,
                    state=DeviceState.ACTIVE,
                    hardware=request.hardware,
                    token_id=token.id,
                    certificate_serial=issued.serial,
                    certificate_expires_at=issued.expires,
                    spki_sha256=issued.spki_sha256,
                    enrolled_at=now,
                )
            )
            _announce(tx, device_id, DeviceState.ACTIVE, Presence.NEVER, self._clock)
        return Enrolled(
            device=device_id,
            device_class=token.device_class,
            certificate_pem=issued.pem,
            ca_pem=self._authority.pem,
            root_json=self._signer.root_json,
            targets_json=self._signer.targets_json,
            broker=self._broker,
            heartbeat_seconds=self._heartbeat,
        )

    def _usable(self, tx: Transaction, text: str) -> TokenRecord:
        try:
            given = JoinToken.parse(text)
        except ValueError as error:
            raise TokenInvalid(str(error)) from error
        record = tx.devices.token(given.id)
        if record is None or not hmac.compare_digest(record.secret_hash, keys.digest(given.secret)):
            msg = "the join token is not known here"
            raise TokenInvalid(
                msg, hint="make a new one with `argosy token create`, and copy it whole"
            )
        if record.revoked:
            msg = f"join token {record.id} has been revoked"
            raise TokenInvalid(msg, hint="make a new one with `argosy token create`")
        if record.expires_at <= self._clock():
            msg = f"join token {record.id} expired at {record.expires_at:%Y-%m-%d %H:%M:%S} UTC"
            raise TokenExpired(msg, hint="make a new one with `argosy token create`")
        if record.uses >= record.max_uses:
            raise _spent(record)
        return record

    def get(self, device_id: str) -> DeviceView:
        """One device."""
        with self._uow.read() as tx:
            record = tx.devices.get(device_id)
            if record is None:
                msg = f"there is no device {device_id}"
                raise NotFound(msg, hint="`argosy device ls` lists them")
            return device_view(tx, record)

    def page(self, before: str | None, limit: int) -> Sequence[DeviceView]:
        """Devices, newest first."""
        with self._uow.read() as tx:
            return [device_view(tx, record) for record in tx.devices.page(before, limit)]

    def born(self, tx: Transaction, device_id: str, birth: Birth, *, retained: bool) -> None:
        """A device says that it is there, and what it serves.

        retained: the broker repeats it because the gateway subscribed anew; that alone
        never brings a device back whose death was heard.
        """
        record = tx.devices.get(device_id, lock=True)
        if record is None:
            return
        same_session = (record.boot, record.session) == (birth.boot, birth.session)
        if record.boot == birth.boot and birth.session < record.session:
            return  # an older connection's, delivered late
        if retained and same_session:
            return
        changed = record.presence is not Presence.ONLINE or record.active != birth.active
        tx.devices.save(
            replace(
                record,
                presence=Presence.ONLINE,
                boot=birth.boot,
                session=birth.session,
                hardware=birth.hardware,
                active=birth.active,
                last_seen_at=self._clock(),
            )
        )
        latest = None if same_session else tx.rollouts.latest_of_device(device_id)
        if latest is not None and latest.state not in DEVICE_TERMINAL:
            # The broker may have lost what was sent down, an end as well as an offer.
            tx.rollouts.save_execution(replace(latest, published=False))
        if changed:
            _announce(tx, device_id, record.state, Presence.ONLINE, self._clock)

    def died(self, tx: Transaction, device_id: str, death: Death) -> None:
        """The broker says that a connection is gone; an older one's end means nothing."""
        record = tx.devices.get(device_id, lock=True)
        if record is None or (record.boot, record.session) != (death.boot, death.session):
            return
        if record.presence is Presence.ONLINE:
            tx.devices.save(replace(record, presence=Presence.OFFLINE))
            _announce(tx, device_id, record.state, Presence.OFFLINE, self._clock)

    def sweep(self) -> int:
        """Take devices for offline that missed three heartbeats; how many."""
        since = self._clock() - timedelta(seconds=_MISSED * self._heartbeat)
        with self._uow() as tx:
            silent = tx.devices.silent(since)
            for record in silent:
                tx.devices.save(replace(record, presence=Presence.OFFLINE))
                _announce(tx, record.id, record.state, Presence.OFFLINE, self._clock)
        return len(silent)


def _spent(token: TokenRecord) -> TokenSpent:
    msg = f"join token {token.id} has been used {token.max_uses} times, as often as it may be"
    return TokenSpent(msg, hint="make one with more uses: `argosy token create --uses N`")


def _announce(
    tx: Transaction, device_id: str, state: DeviceState, presence: Presence, clock: Clock
) -> None:
    data = {"state": state.value, "presence": presence.value}
    tx.events.add("device", device_id, data, clock())


def token_view(record: TokenRecord) -> TokenView:
    """A join token as the API shows it."""
    return TokenView.model_validate(record, from_attributes=True)


def device_view(tx: Transaction, record: DeviceRecord) -> DeviceView:
    """A device as the API shows it."""
    latest = tx.rollouts.latest_of_device(record.id)
    return DeviceView(
        id=record.id,
        device_class=record.device_class,
        tags=record.tags,
        state=record.state,
        presence=record.presence,
        hardware=record.hardware,
        active=record.active,
        rollout=latest.rollout_id if latest else None,
        certificate_expires_at=record.certificate_expires_at,
        enrolled_at=record.enrolled_at,
        last_seen_at=record.last_seen_at,
    )
