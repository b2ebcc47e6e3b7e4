"""API tokens: ``arg_<key id>_<secret>``, of which only a hash is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

from orchestrator.errors import Unauthenticated
from orchestrator.services.ports import Transaction
from orchestrator.services.records import KeyRecord
from schemas.access import SCOPES_OF, Role, Scope
from schemas.ids import new_id

_FORM = re.compile(r"^arg_(key_[0-9a-z]{16})_([A-Za-z0-9_-]{43})$")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking, and what they may do.

    subject: the job of a job's token. session: the session of the page by which they came.
    """

    key_id: str
    role: Role
    subject: str | None = None
    scopes: frozenset[Scope] = frozenset()
    name: str = ""
    expires_at: datetime | None = None
    session: str | None = None

    @property
    def actor(self) -> str:
        """The name under which the audit log has them."""
        return f"{self.role}:{self.key_id}"


def digest(secret: str) -> str:
    """SHA-256 in hex: enough for a secret of 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create(
    tx: Transaction,
    role: Role,
    now: datetime,
    *,
    name: str = "",
    scopes: tuple[Scope, ...] | None = None,
    subject: str | None = None,
    expires_at: datetime | None = None,
) -> str:
    """Make a token and give its text, the only time that it is seen."""
    key_id, secret = new_id("key"), secrets.token_urlsafe(32)
    tx.keys.add(
        KeyRecord(
            id=key_id,
            secret_hash=digest(secret),
            role=role,
            name=name,
            scopes=scopes,
            subject=subject,
            expires_at=expires_at,
            created_at=now,
        )
    )
    return f"arg_{key_id}_{secret}"


def id_of(token: str) -> str | None:
    """The id in a token's text, whether it is a good one or not; None where it has none."""
    found = _FORM.match(token)
    return found[1] if found else None


def scopes_of(record: KeyRecord) -> frozenset[Scope]:
    """What a token may do: what its role may, or fewer."""
    whole = SCOPES_OF[Role(record.role)]
    return whole if record.scopes is None else whole & frozenset(record.scopes)


def works(record: KeyRecord, now: datetime) -> bool:
    """Whether a token has been neither revoked nor let expire."""
    return not record.revoked and (record.expires_at is None or record.expires_at > now)


def principal_of(record: KeyRecord, now: datetime, session: str | None = None) -> Principal:
    """Who a token stands for.

    Raises:
        Unauthenticated: it was revoked, or has expired.
    """
    if not works(record, now):
        msg = "the API token has been revoked or has expired"
        raise Unauthenticated(msg, hint="an admin makes another with `argosy api-token create`")
    return Principal(
        key_id=record.id,
        role=Role(record.role),
        subject=record.subject,
        scopes=scopes_of(record),
        name=record.name,
        expires_at=record.expires_at,
        session=session,
    )


def stands(tx: Transaction, caller: Principal, now: datetime) -> bool:
    """Whether who was let in before still would be: for what goes on for long."""
    record = tx.keys.get(caller.key_id)
    in_session = caller.session is None or tx.sessions.get(caller.session) is not None
    return record is not None and works(record, now) and in_session


def authenticate(tx: Transaction, token: str | None, now: datetime) -> Principal:
    """Who a bearer token belongs to.

    Raises:
        Unauthenticated: it is missing, malformed, unknown, revoked or expired.
    """
    if not token:
        msg = "this needs an API token"
        raise Unauthenticated(
            msg, hint="`argosy login URL` keeps one for the command, `argosy up` one in its home"
        )
    found = _FORM.match(token)
    record = tx.keys.get(found[1]) if found else None
    if (
        found is None
        or record is None
        or not hmac.compare_digest(record.secret_hash, digest(found[2]))
    ):
        msg = "the API token is not known here"
        hint = "check ARGOSY_TOKEN, the profile (`argosy profile ls`) or ARGOSY_HOME"
        raise Unauthenticated(msg, hint=hint)
    return principal_of(record, now)
