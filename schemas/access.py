"""Who may do what: roles, scopes, API tokens, sessions, and the audit log."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from schemas.base import Authored, PlainText, UtcTime, Wire
from schemas.ids import KeyId, Name, Sha256


class Scope(StrEnum):
    """One right. A route asks for one; a token has those of its role, or fewer."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    RELEASE = "models:release"
    ROLLOUTS_READ = "rollouts:read"
    ROLLOUTS_WRITE = "rollouts:write"
    DEVICES_READ = "devices:read"
    DEVICES_WRITE = "devices:write"
    TELEMETRY_READ = "telemetry:read"
    SAMPLES_READ = "samples:read"
    TRUST_READ = "trust:read"
    TRUST_WRITE = "trust:write"
    ACCESS_WRITE = "access:write"
    AUDIT_READ = "audit:read"


class Role(StrEnum):
    """What a token is for. worker and job are given out by the platform to its programs."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    RELEASER = "releaser"
    ADMIN = "admin"
    WORKER = "worker"
    JOB = "job"


_VIEW = frozenset(
    {
        Scope.JOBS_READ,
        Scope.MODELS_READ,
        Scope.ROLLOUTS_READ,
        Scope.DEVICES_READ,
        Scope.TELEMETRY_READ,
        Scope.TRUST_READ,
    }
)
_OPERATE = _VIEW | {
    Scope.JOBS_WRITE,
    Scope.MODELS_WRITE,
    Scope.DEVICES_WRITE,
    Scope.SAMPLES_READ,
}

SCOPES_OF: dict[Role, frozenset[Scope]] = {
    Role.VIEWER: _VIEW,
    Role.OPERATOR: _OPERATE,
    Role.RELEASER: _OPERATE | {Scope.RELEASE, Scope.ROLLOUTS_WRITE},
    Role.ADMIN: frozenset(Scope),
    Role.WORKER: frozenset(),
    Role.JOB: frozenset(),
}
"""What each role may do at most. Programs have routes of their own instead of scopes."""

PEOPLE = (Role.VIEWER, Role.OPERATOR, Role.RELEASER, Role.ADMIN)


class ApiTokenRequest(Authored):
    """An API token to be made. scopes: fewer than the role has; None leaves it all of them."""

    name: Name
    role: Role
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=32)] | None = None
    ttl_seconds: Annotated[int, Field(ge=60, le=3650 * 86400)] | None = None


class ApiTokenView(Wire):
    """An API token without its secret."""

    id: KeyId
    name: str
    role: Role
    scopes: tuple[Scope, ...]
    expires_at: UtcTime | None
    revoked: bool
    created_at: UtcTime
    last_used_at: UtcTime | None = None


class ApiTokenCreated(Wire):
    """The one answer that holds the token itself."""

    token: str
    view: ApiTokenView


class Whoami(Wire):
    """Whose token or session it is. csrf: what a page sends as ``X-Argosy-CSRF``."""

    id: KeyId
    name: str
    role: Role
    scopes: tuple[Scope, ...]
    expires_at: UtcTime | None
    csrf: str | None = None


class SessionRequest(Wire):
    """Signing in to the page: the token is exchanged for a cookie."""

    token: Annotated[str, StringConstraints(max_length=200)]


class AuditEntry(Wire):
    """Something that was done, and by whom.

    actor: ``<role>:<token id>``, ``device:<id>``, ``platform``. digest: of this entry and
    the one before it, so that neither can be changed or taken out unseen.
    """

    seq: Annotated[int, Field(ge=1)]
    at: UtcTime
    actor: Annotated[PlainText, StringConstraints(max_length=100)]
    action: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]*(\.[a-z_]+)+$", max_length=64)]
    subject: Annotated[PlainText, StringConstraints(max_length=200)]
    detail: dict[str, Any] = Field(default_factory=dict)
    previous: Sha256
    digest: Sha256


AUDIT_START = "0" * 64
"""What the first entry has in place of the one before it."""


def audit_digest(entry: AuditEntry) -> str:
    """The digest that an entry must have: SHA-256 of its other fields as canonical JSON."""
    fields = entry.model_dump(mode="json", exclude={"digest"})
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
