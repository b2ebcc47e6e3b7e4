"""Why a device gets no certificate, in words for who stands in front of it."""

from __future__ import annotations

from orchestrator.domain.enrollment import Refusal
from orchestrator.errors import (
    ArgosyError,
    Conflict,
    Forbidden,
    Rejected,
    Revoked,
    TokenExpired,
    TokenInvalid,
    TokenSpent,
    TooMany,
)
from orchestrator.services import tokens
from orchestrator.services.records import DeviceRecord, TokenRecord


def refused(
    why: Refusal, *, token: TokenRecord | None = None, device: DeviceRecord | None = None
) -> ArgosyError:
    """The error for a refusal.

    Args:
        why: the decision.
        token: with which the device came, where it came with one.
        device: that is meant, where it is known.
    """
    if token is not None and why in _OF_TOKEN:
        return _of_token(why, token)
    kind, text, hint = _OF_DEVICE[why]
    words = {
        "device": device.id if device else "the device",
        "reason": f": {device.revoke_reason}" if device and device.revoke_reason else "",
    }
    return kind(text.format(**words), hint=hint.format(**words) if device else None)


_ANEW = "on the platform: `argosy token create --device {device}`"
_REVOKED = (Revoked, "{device} was revoked{reason}", _ANEW)

_OF_DEVICE: dict[Refusal, tuple[type[ArgosyError], str, str]] = {
    Refusal.KEY_TAKEN: (
        Conflict,
        "this key belongs to another device, or came with another join token",
        "enroll with a new key",
    ),
    Refusal.KEY_REPLACED: (Conflict, "{device} has another key since", _ANEW),
    Refusal.DEVICE_REJECTED: (
        Rejected,
        "{device} was rejected{reason}",
        "ask who runs the platform",
    ),
    Refusal.DEVICE_REVOKED: _REVOKED,
    Refusal.DEVICE_PENDING: (
        Conflict,
        "{device} has not been approved yet",
        "on the platform: `argosy device approve {device}`",
    ),
    Refusal.CERTIFICATE_UNKNOWN: (Forbidden, "{device} has no such certificate", _ANEW),
    Refusal.CERTIFICATE_REVOKED: _REVOKED,
    Refusal.CERTIFICATE_REPLACED: (
        Forbidden,
        "{device} has used a newer certificate since",
        _ANEW,
    ),
    Refusal.CERTIFICATE_TOO_OLD: (
        Forbidden,
        "the certificate of {device} expired too long ago",
        _ANEW,
    ),
    Refusal.TOO_MANY: (
        TooMany,
        "{device} got too many certificates within the last hour",
        "try again in an hour",
    ),
}

_OF_TOKEN = frozenset(
    {
        Refusal.TOKEN_REVOKED,
        Refusal.TOKEN_EXPIRED,
        Refusal.TOKEN_SPENT,
        Refusal.KEY_NOT_NAMED,
    }
)


def _of_token(why: Refusal, token: TokenRecord) -> ArgosyError:
    match why:
        case Refusal.TOKEN_EXPIRED:
            msg = f"join token {token.id} expired at {token.expires_at:%Y-%m-%d %H:%M:%S} UTC"
            return TokenExpired(msg, hint=tokens.NEW)
        case Refusal.TOKEN_SPENT:
            times = "once" if token.max_uses == 1 else f"{token.max_uses} times"
            msg = f"join token {token.id} has been used {times}, as often as it may be"
            return TokenSpent(msg, hint="make one with more uses: `argosy token create --uses N`")
        case Refusal.KEY_NOT_NAMED:
            msg = f"join token {token.id} is for other keys than this device's"
            return TokenInvalid(msg, hint="name its key with `argosy token create --key`")
        case _:
            return tokens.unknown()
