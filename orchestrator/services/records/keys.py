"""Records of API keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """An API key. ``subject`` is the job of a job's key."""

    id: str
    secret_hash: str
    role: str
    subject: str | None = None
    expires_at: datetime | None = None
    revoked: bool = False
    created_at: datetime
