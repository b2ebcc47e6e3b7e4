"""Join tokens: what lets a device in."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.errors import Conflict, Invalid, NotFound, TokenInvalid
from orchestrator.services import keys
from orchestrator.services.ports import Authority, Clock, Signer, Transaction, UnitOfWork
from orchestrator.services.records import DeviceRecord, TokenRecord
from schemas.device import DeviceState
from schemas.enroll import JoinToken, TokenCreated, TokenRequest, TokenView
from schemas.ids import new_id

NEW = "make a new one with `argosy token create`"
_NOBODY = keys.digest("")


class TokenService:
    """Makes, lists and revokes join tokens.

    Args:
        uow: opens transactions.
        clock: the time, in UTC.
        authority: its root is pinned by new tokens.
        signer: the newest trust root is pinned likewise.
        server: what a device is told to call.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        authority: Authority,
        signer: Signer,
        *,
        server: str = "",
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._authority = authority
        self._signer = signer
        self._server = server

    def create(self, request: TokenRequest) -> TokenCreated:
        """Make a join token; the answer is the only place that holds it.

        Raises:
            Invalid: what it asks for contradicts itself, or the device that it is for.
            NotFound, Conflict: there is no such device, or it was not approved yet.
        """
        _check(request)
        now, secret = self._clock(), secrets.token_urlsafe(32)
        with self._uow() as tx:
            record = _record(request, _device(tx, request), secret, now)
            tx.devices.add_token(record)
            tx.audit.add("token.create", record.id, _told(record))
        token = JoinToken(
            record.id, secret, self._authority.ca_sha256(), self._signer.root_sha256()
        )
        return TokenCreated(token=str(token), view=token_view(record), server=self._server)

    def list(self, before: str | None, limit: int) -> Sequence[TokenView]:
        """Join tokens, newest first."""
        with self._uow.read() as tx:
            return [token_view(record) for record in tx.devices.tokens(before, limit)]

    def revoke(self, token_id: str) -> TokenView:
        """Let nobody else in by a token; who came with it stays. A repeat changes nothing.

        Raises:
            NotFound: there is no such token.
        """
        with self._uow() as tx:
            record = tx.devices.token(token_id)
            if record is None:
                msg = f"there is no join token {token_id}"
                raise NotFound(msg, hint="`argosy token ls` lists them")
            if not record.revoked:
                record = replace(record, revoked=True)
                tx.devices.save_token(record)
                tx.audit.add("token.revoke", record.id, {"uses": record.uses})
            return token_view(record)


def parse(text: str) -> JoinToken:
    """Read a token.

    Raises:
        TokenInvalid: it does not have the form of one.
    """
    try:
        return JoinToken.parse(text)
    except ValueError as error:
        raise TokenInvalid(str(error)) from error


def presented(tx: Transaction, given: JoinToken) -> TokenRecord:
    """The token whose secret was presented.

    Raises:
        TokenInvalid: there is none, or the secret is another one: both take the same time and
            give the same answer, so ids cannot be guessed.
    """
    record = tx.devices.token(given.id)
    expected = _NOBODY if record is None else record.secret_hash
    if not hmac.compare_digest(expected, keys.digest(given.secret)) or record is None:
        raise unknown()
    return record


def unknown() -> TokenInvalid:
    """The refusal of a token that is not, or no longer, one of ours."""
    msg = "the join token is not known here, or it was revoked"
    return TokenInvalid(msg, hint=f"copy it whole, or {NEW}")


def _check(request: TokenRequest) -> None:
    if request.keys and request.approval:
        msg = "approval: devices whose keys are named need none"
        raise Invalid(msg, hint="leave out either the keys or the approval")
    if request.device is not None and request.approval:
        msg = "approval: a token that is made for a device needs none"
        raise Invalid(msg)
    if request.device is not None and request.max_uses != 1:
        msg = "max_uses: a token that is made for a device is used once"
        raise Invalid(msg)
    if len(set(request.keys)) != len(request.keys):
        msg = "keys: one of them is named twice"
        raise Invalid(msg)
    if "max_uses" in request.model_fields_set and 0 < len(request.keys) < request.max_uses:
        msg = f"max_uses: {request.max_uses} is more than the {len(request.keys)} keys named"
        raise Invalid(msg)


def _device(tx: Transaction, request: TokenRequest) -> DeviceRecord | None:
    if request.device is None:
        return None
    device = tx.devices.get(request.device)
    if device is None:
        msg = f"there is no device {request.device}"
        raise NotFound(msg, hint="`argosy device ls` lists them")
    if device.state is DeviceState.PENDING:
        msg = f"{device.id} has not been approved yet, so it cannot have been lost"
        raise Conflict(msg, hint=f"`argosy device approve {device.id}`")
    if request.device_class not in {None, device.device_class}:
        msg = f"device_class: {device.id} is of class {device.device_class!r}"
        raise Invalid(msg, hint="leave the class out: the device keeps its own")
    if request.tags and set(request.tags) != set(device.tags):
        msg = f"tags: {device.id} has {', '.join(device.tags) or 'none'}"
        raise Invalid(msg, hint="leave the tags out: the device keeps its own")
    return device


def _record(
    request: TokenRequest, device: DeviceRecord | None, secret: str, now: datetime
) -> TokenRecord:
    uses = request.max_uses
    if request.keys and device is None and "max_uses" not in request.model_fields_set:
        uses = len(request.keys)
    return TokenRecord(
        id=new_id("tok"),
        secret_hash=keys.digest(secret),
        device_class=device.device_class if device else request.device_class or "default",
        tags=device.tags if device else request.tags,
        max_uses=uses,
        approval=request.approval,
        keys=request.keys,
        device_id=request.device,
        note=request.note,
        expires_at=now + timedelta(seconds=request.ttl_seconds),
        created_at=now,
    )


def _told(record: TokenRecord) -> dict[str, object]:
    """What the audit log says of a new token."""
    told = {
        "class": record.device_class,
        "tags": list(record.tags),
        "max_uses": record.max_uses,
        "approval": record.approval,
        "keys": len(record.keys),
        "expires_at": record.expires_at.isoformat(),
    }
    optional = {"device": record.device_id, "note": record.note}
    return told | {key: value for key, value in optional.items() if value}


def token_view(record: TokenRecord) -> TokenView:
    """A join token as the API shows it."""
    return TokenView(
        id=record.id,
        device_class=record.device_class,
        tags=record.tags,
        max_uses=record.max_uses,
        uses=record.uses,
        approval=record.approval,
        keys=len(record.keys),
        device=record.device_id,
        note=record.note,
        expires_at=record.expires_at,
        revoked=record.revoked,
        created_at=record.created_at,
    )
