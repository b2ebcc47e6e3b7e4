"""Verifying an audit log where the platform cannot reach: on the operator's machine.

Each entry holds the digest of the one before. So a changed, missing or moved entry shows by
itself; a log that was cut off, or computed anew from some entry on, shows against the head that
was remembered from the last time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.client.profiles import Profiles
from schemas.access import AUDIT_START, AuditEntry, audit_digest

_MAX_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry that was verified."""

    seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a log is worth.

    entries: how many hold. head: the last of them. fault: what is wrong with the first bad
    one, whose number is bad; None where all is well.
    """

    entries: int
    head: Head | None
    bad: int | None = None
    fault: str | None = None


def verify(items: Iterable[Mapping[str, Any]], remembered: Head | None = None) -> Verdict:
    """Compute a log's digests anew.

    Args:
        items: all entries as the platform gives them, in order.
        remembered: how far it was verified before.
    """
    head = Head(0, AUDIT_START)
    for item in items:
        seq, fault = _fault(item, head, remembered)
        if fault is not None:
            return _verdict(head, seq, fault)
        head = Head(seq, str(item["digest"]))
    if remembered is not None and head.seq < remembered.seq:
        fault = f"the log ends at {head.seq}, but entry {remembered.seq} was verified here before"
        return _verdict(head, head.seq + 1, fault)
    return _verdict(head)


def _fault(item: Mapping[str, Any], head: Head, remembered: Head | None) -> tuple[int, str | None]:
    """The number of an entry, and what is wrong with it after ``head``."""
    expected = head.seq + 1
    try:
        entry = AuditEntry.model_validate(item)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return expected, f"it cannot be read: {where}: {first['msg']}"
    if entry.seq != expected:
        return expected, f"it is missing: entry {entry.seq} stands in its place"
    if audit_digest(entry) != entry.digest:
        return expected, "it was changed: its digest is not that of its fields"
    if entry.previous != head.digest:
        return expected, "it does not follow from the entry before it"
    if remembered is not None and entry.seq == remembered.seq and entry.digest != remembered.digest:
        return expected, "it is not the entry that was verified here before: the log was rewritten"
    return expected, None


def _verdict(head: Head, bad: int | None = None, fault: str | None = None) -> Verdict:
    return Verdict(head.seq, head if head.seq else None, bad, fault)


@dataclass(frozen=True, slots=True)
class Memory:
    """Where the head of one platform's log is remembered.

    platform: by what it is known here: its profile or home, and its address. Nothing that
    the platform itself says, so that another log cannot pass for a new platform's.
    """

    profiles: Profiles
    platform: str

    @property
    def path(self) -> Path:
        """The file."""
        name = hashlib.sha256(self.platform.encode()).hexdigest()[:32]
        return self.profiles.folder / "audit" / f"{name}.json"

    def head(self) -> Head | None:
        """What is remembered; None the first time."""
        try:
            with self.path.open("rb") as file:
                values = json.loads(file.read(_MAX_HEAD_BYTES))
            return Head(int(values["seq"]), str(values["digest"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, head: Head) -> None:
        """Remember a head."""
        self.profiles.write(self.path, json.dumps({**asdict(head), "platform": self.platform}))

    def forget(self) -> None:
        """Begin anew: the platform was set up again."""
        self.path.unlink(missing_ok=True)
