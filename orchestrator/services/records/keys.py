"""Records of API tokens and sessions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.access import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """An API token.

    subject: the job of a job's token. name: what a person called it. scopes: fewer than
    its role has; None leaves it all of them.
    """

    id: str
    secret_hash: str
    role: str
    name: str = ""
    scopes: tuple[Scope, ...] | None = None
    subject: str | None = None
    expires_at: datetime | None = None
    revoked: bool = False
    created_at: datetime
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A session of the page. id: the SHA-256 of its cookie. key_id: whose rights it has."""

    id: str
    key_id: str
    created_at: datetime
    seen_at: datetime
