"""Records of patches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRecord:
    """What is known of making one file of another.

    sha256, leaves_sha256, size: of the patch; no digest means that there is none. made_at: when
    that was found out; None while nobody has. offered_at: when a device was last told of it.
    owner, until: who makes it now, and when that is over, also unsaid.
    """

    target: str
    base: str
    sha256: str | None = None
    leaves_sha256: str | None = None
    size: int = 0
    made_at: datetime | None = None
    offered_at: datetime
    owner: str | None = None
    until: datetime | None = None
