"""Who may join, who gets a certificate and who may renew one: decisions without any IO."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from schemas.device import DeviceState

MAX_RENEWALS = 20
"""Certificates that a device may get within ``RENEWAL_SPAN``."""

RENEWAL_SPAN = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """A join token whose secret the sender has.

    keys: SHA-256 of the public keys that may use it; empty is any. device: the device whose
    place it gives.
    """

    id: str
    revoked: bool
    expires_at: datetime
    uses_left: int
    approval: bool = False
    keys: Collection[str] = ()
    device: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """A certificate of a device. seen: a birth has told of it."""

    serial: str
    spki_sha256: str
    csr_sha256: str
    issued_at: datetime
    expires_at: datetime
    seen: bool = False
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderFacts:
    """The device that a key belongs to.

    token: with which that key came. spki_sha256: the key that the device has now.
    certificate: the one issued last.
    """

    id: str
    state: DeviceState
    token: str | None
    spki_sha256: str
    certificate: CertificateFacts | None = None


class Grant(StrEnum):
    """What a request leads to.

    CREATE: a new device, with a certificate. CREATE_PENDING: one that waits for approval.
    REPLACE: the token's device, with this key and no other. ISSUE: a certificate for a device
    that is there. WAIT: it is not approved yet. REPEAT: the certificate that it has already.
    """

    CREATE = "CREATE"
    CREATE_PENDING = "CREATE_PENDING"
    REPLACE = "REPLACE"
    ISSUE = "ISSUE"
    WAIT = "WAIT"
    REPEAT = "REPEAT"


class Refusal(StrEnum):
    """Why nothing is given."""

    TOKEN_REVOKED = "TOKEN_REVOKED"  # noqa: S105 - a reason, not a secret
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 - likewise
    TOKEN_SPENT = "TOKEN_SPENT"  # noqa: S105 - likewise
    KEY_NOT_NAMED = "KEY_NOT_NAMED"
    KEY_TAKEN = "KEY_TAKEN"
    KEY_REPLACED = "KEY_REPLACED"
    DEVICE_REJECTED = "DEVICE_REJECTED"
    DEVICE_REVOKED = "DEVICE_REVOKED"
    DEVICE_PENDING = "DEVICE_PENDING"
    CERTIFICATE_UNKNOWN = "CERTIFICATE_UNKNOWN"
    CERTIFICATE_REVOKED = "CERTIFICATE_REVOKED"
    CERTIFICATE_REPLACED = "CERTIFICATE_REPLACED"
    CERTIFICATE_TOO_OLD = "CERTIFICATE_TOO_OLD"
    TOO_MANY = "TOO_MANY"


def enroll(
    token: TokenFacts, key: str, holder: HolderFacts | None, now: datetime, grace: timedelta
) -> Grant | Refusal:
    """Decide over a request to join.

    The same key with the same token is the same device, also once the token is spent or
    expired: an answer that was lost, or an approval that is awaited.

    Args:
        token: what it came with.
        key: SHA-256 of its public key.
        holder: the device that has or had this key, if any.
        now: the time.
        grace: for how long after its end a certificate is issued anew for the same key.
    """
    if holder is not None:
        return _known_key(token, key, holder, now, grace)
    if token.revoked:
        return Refusal.TOKEN_REVOKED
    if token.expires_at <= now:
        return Refusal.TOKEN_EXPIRED
    if token.uses_left <= 0:
        return Refusal.TOKEN_SPENT
    if token.keys and key not in token.keys:
        return Refusal.KEY_NOT_NAMED
    if token.device is not None:
        return Grant.REPLACE
    return Grant.CREATE_PENDING if token.approval else Grant.CREATE


def _known_key(
    token: TokenFacts, key: str, holder: HolderFacts, now: datetime, grace: timedelta
) -> Grant | Refusal:
    revoked = holder.state is DeviceState.REVOKED
    if holder.token != token.id:
        # With a token for this very device it is the key alone that is in the way.
        shut = revoked and token.device != holder.id
        return Refusal.DEVICE_REVOKED if shut else Refusal.KEY_TAKEN
    if revoked:
        approved = holder.certificate is not None
        return Refusal.DEVICE_REVOKED if approved else Refusal.DEVICE_REJECTED
    if holder.spki_sha256 != key:
        return Refusal.KEY_REPLACED
    if holder.state is DeviceState.PENDING:
        return Grant.WAIT
    issued = holder.certificate
    if issued is None:
        return Grant.ISSUE
    if issued.revoked:
        return Refusal.CERTIFICATE_REVOKED
    if now < issued.expires_at:
        return Grant.REPEAT
    return Grant.ISSUE if now < issued.expires_at + grace else Refusal.CERTIFICATE_TOO_OLD


def proven(
    shown: str, certificates: Sequence[CertificateFacts], now: datetime, grace: timedelta
) -> Refusal | None:
    """Whether an old certificate, whose key its sender has proven, still speaks for a device.

    One that the device went beyond (a newer one was seen in a birth) does not: whoever finds
    an old key on a lost disk has nothing.

    Args:
        shown: its serial.
        certificates: all that the device has had.
        now: the time.
        grace: for how long after its end it still does.
    """
    old = next((one for one in certificates if one.serial == shown), None)
    if old is None:
        return Refusal.CERTIFICATE_UNKNOWN
    if old.revoked:
        return Refusal.CERTIFICATE_REVOKED
    if any(one.seen and one.issued_at > old.issued_at for one in certificates):
        return Refusal.CERTIFICATE_REPLACED
    return Refusal.CERTIFICATE_TOO_OLD if now >= old.expires_at + grace else None


def renew(
    device: HolderFacts,
    key: str,
    owner: str | None,
    certificates: Sequence[CertificateFacts],
    csr_sha256: str,
    now: datetime,
) -> Grant | Refusal:
    """Decide over a request for the next certificate; ``Grant.ISSUE`` or ``Grant.REPEAT``.

    Args:
        device: who asks; its connection or its old key has shown that.
        key: SHA-256 of the key in the request.
        owner: the device that has or had that key, if any.
        certificates: all that the device has had.
        csr_sha256: of the request's PEM text: the same request gets the same certificate
            while that is young.
        now: the time.
    """
    if device.state is DeviceState.REVOKED:
        return Refusal.DEVICE_REVOKED
    if device.state is DeviceState.PENDING:
        return Refusal.DEVICE_PENDING
    if owner not in {None, device.id}:
        return Refusal.KEY_TAKEN
    if owner == device.id and key != device.spki_sha256:
        return Refusal.KEY_REPLACED
    if repeated(certificates, csr_sha256, now) is not None:
        return Grant.REPEAT
    if sum(one.issued_at > now - RENEWAL_SPAN for one in certificates) >= MAX_RENEWALS:
        return Refusal.TOO_MANY
    return Grant.ISSUE


def repeated(
    certificates: Sequence[CertificateFacts], csr_sha256: str, now: datetime
) -> CertificateFacts | None:
    """The certificate that answered this very request, if it is in the first half of its life."""
    for one in certificates:
        young = now - one.issued_at < (one.expires_at - one.issued_at) / 2
        if one.csr_sha256 == csr_sha256 and young and not one.revoked:
            return one
    return None
