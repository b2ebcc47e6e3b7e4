"""Records of model versions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """A model version. ``manifest`` is JSON text, kept byte for byte; manifest_size: its bytes.

    purged: its files were collected; only this record is left. restored_at: when
    they last came back. take_back: it was revoked, and whoever serves it is to get another version:
    take_back_to, or what each served before.
    """

    model: str
    version: int
    manifest: str
    manifest_sha256: str
    manifest_size: int
    job_id: str | None
    revoked: bool = False
    revoked_reason: str | None = None
    purged: bool = False
    tags: tuple[str, ...] = ()
    note: str = ""
    created_at: datetime
    restored_at: datetime | None = None
    take_back: bool = False
    take_back_to: int | None = None
