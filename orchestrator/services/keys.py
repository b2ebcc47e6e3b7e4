"""API keys: ``arg_<key id>_<secret>``, of which only a hash is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestrator.errors import Unauthenticated
from orchestrator.services.ports import Transaction
from orchestrator.services.records import KeyRecord
from schemas.ids import new_id

_FORM = re.compile(r"^arg_(key_[0-9a-z]{16})_([A-Za-z0-9_-]{43})$")


class Role(StrEnum):
    """What a key may do."""

    ADMIN = "admin"
    WORKER = "worker"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking. ``subject`` is the job of a job's key."""

    key_id: str
    role: Role
    subject: str | None


def digest(secret: str) -> str:
    """SHA-256 in hex: enough for a secret of 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create(
    tx: Transaction,
    role: Role,
    now: datetime,
    *,
    subject: str | None = None,
    expires_at: datetime | None = None,
) -> str:
    """Make a key and give its token, the only time that it is seen."""
    key_id, secret = new_id("key"), secrets.token_urlsafe(32)
    tx.keys.add(
        KeyRecord(
            id=key_id,
            secret_hash=digest(secret),
            role=role,
            subject=subject,
            expires_at=expires_at,
            created_at=now,
        )
    )
    return f"arg_{key_id}_{secret}"


def authenticate(tx: Transaction, token: str | None, now: datetime) -> Principal:
    """Who a bearer token belongs to.

    Raises:
        Unauthenticated: it is missing, malformed, unknown, revoked or expired.
    """
    if not token:
        msg = "this needs an API token"
        raise Unauthenticated(
            msg, hint="send 'Authorization: Bearer …'; `argosy up` keeps one in its home folder"
        )
    found = _FORM.match(token)
    record = tx.keys.get(found[1]) if found else None
    if (
        found is None
        or record is None
        or not hmac.compare_digest(record.secret_hash, digest(found[2]))
    ):
        msg = "the API token is not known here"
        raise Unauthenticated(msg, hint="check ARGOSY_TOKEN, or the home that ARGOSY_HOME names")
    if record.revoked or (record.expires_at is not None and record.expires_at <= now):
        msg = "the API token has been revoked or has expired"
        raise Unauthenticated(msg)
    return Principal(record.id, Role(record.role), record.subject)
