"""What a new enrollment of the same home keeps, and what it drops.

Models and their slots stay in every case: they were verified, and a device that serves goes on
serving. What belongs to the device's name goes when the name changes.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edge_client import certificates
from edge_client.identity import Identity, NewIdentity
from edge_client.settings import Home


class Change(StrEnum):
    """How the new identity relates to the old one."""

    FIRST = "first"
    SAME_DEVICE = "same_device"
    OTHER_DEVICE = "other_device"
    OTHER_PLATFORM = "other_platform"


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many unsent messages of the old device went."""

    windows: int = 0
    reports: int = 0


def change(old: Identity | None, new: NewIdentity) -> Change:
    """Compare two identities. A platform is known by its trust root, or by an authority."""
    if old is None:
        return Change.FIRST
    if old.record.device == new.record.device:
        return Change.SAME_DEVICE
    roots = certificates.read_certificates(new.ca_pem, "the new authorities")
    common = {certificates.digest(root) for root in roots} & set(old.seen.roots)
    if common or old.root_json == new.root_json:
        return Change.OTHER_DEVICE
    return Change.OTHER_PLATFORM


def drop(home: Home, what: Change) -> Dropped:
    """Drop what the new device must not send: it would be told under its name.

    Done before the new identity counts: a device that is killed in between has lost what it
    had not sent, and nothing else. The floors in the journal are kept by device, and stay; the
    cache of another platform's trust metadata would only be in the way.
    """
    if what in {Change.FIRST, Change.SAME_DEVICE}:
        return Dropped()
    if what is Change.OTHER_PLATFORM:
        shutil.rmtree(home.metadata, ignore_errors=True)
    return Dropped(
        windows=_empty(home.telemetry, "windows"), reports=_empty(home.journal, "outbox")
    )


def in_words(what: Change, old: Identity | None, dropped: Dropped) -> list[str]:
    """What an operator should know of it."""
    if old is None or what is Change.FIRST:
        return []
    if what is Change.SAME_DEVICE:
        return ["it is the same device as before: models, telemetry and its floors were kept"]
    unsent = f"{dropped.windows} telemetry window(s) and {dropped.reports} report(s)"
    lines = [
        f"it was {old.record.device}, which had not sent {unsent}: they were dropped",
        "installed models were kept",
    ]
    if what is Change.OTHER_PLATFORM:
        lines.append("this is another platform: its first rollout replaces the models")
    return lines


def _empty(path: Path, table: str) -> int:
    """Remove the rows of a table; a file that is damaged is dealt with by the agent."""
    if not path.exists():
        return 0
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as db, db:
        return db.execute(f"DELETE FROM {table}").rowcount  # noqa: S608 - names from this file
    return 0
