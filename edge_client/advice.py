"""What is wrong with a device's surroundings, and what to do: its disk, its clock, its journal.

Looked up by who asks, not told by the agent: what is wrong may keep the agent from telling.
"""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
from contextlib import closing

from edge_client.database import open_readonly
from edge_client.errors import JournalError
from edge_client.hang import read_hang
from edge_client.settings import BUILT, MIB, Home
from edge_client.slots import find_pointers
from edge_client.store import RESERVE
from schemas.base import Wire

GOOD_TIME = "good_time"
_AT_LEAST = 2 * MIB


class Trouble(Wire):
    """One thing. do: what to do about it."""

    what: str
    do: str


def troubles(home: Home, now: dt.datetime) -> tuple[Trouble, ...]:
    """Look. now: what the device's clock says."""
    facts = read_facts(home)
    found = (*_disk(home), *_clock(now, facts), *_journal(home, facts), *_pointer(home))
    return tuple(found)


def _disk(home: Home) -> list[Trouble]:
    try:
        disk = os.statvfs(home.root)
    except OSError as error:
        return [Trouble(what=f"{home.root} cannot be read: {error.strerror}", do="check the disk")]
    if disk.f_flag & os.ST_RDONLY:
        what = f"the disk with {home.root} is read-only: the model serves, and nothing is updated"
        do = "look in the kernel's log for the reason, then remount it, or replace the disk"
        return [Trouble(what=what, do=f"{do}; the agent goes on by itself")]
    if not os.access(home.root, os.W_OK):
        what = f"{home.root} may not be written by this user: nothing is updated"
        return [Trouble(what=what, do="give it to the user of the agent (chown)")]
    free = disk.f_bavail * disk.f_frsize
    if free < RESERVE:
        least = "nothing can be written" if free < _AT_LEAST else "no update is fetched"
        what = f"the disk with {home.root} is full ({free // MIB} MiB free): {least}"
        return [Trouble(what=what, do="free some room; the agent goes on by itself")]
    return []


def _clock(now: dt.datetime, facts: dict[str, float] | None) -> list[Trouble]:
    good = (facts or {}).get(GOOD_TIME)
    since = BUILT if good is None else max(BUILT, dt.datetime.fromtimestamp(good, dt.UTC))
    if now >= since:
        return []
    what = f"the clock says {now:%Y-%m-%d %H:%M} UTC, which is past: it was {since:%Y-%m-%d} before"
    return [Trouble(what=f"{what}; nothing is installed", do="set the clock, or run an NTP client")]


def _journal(home: Home, facts: dict[str, float] | None) -> list[Trouble]:
    found: list[Trouble] = []
    if facts is None:
        what = f"{home.journal} cannot be read: the model serves, and no update is taken"
        do = "free some room; if it is damaged, remove it and enroll the device anew"
        found.append(Trouble(what=what, do=do))
    hang = read_hang(home)
    if hang is not None:
        what = f"the watchdog ended the agent: {hang.what} {hang.why}"
        found.append(Trouble(what=what, do="start the agent, and look at the stacks in its log"))
    return found


def _pointer(home: Home) -> list[Trouble]:
    found = find_pointers(home.pointer)
    if found.damage is None:
        return []
    do = "nothing: the next start mends it" if found.pointers else "roll a version out to it"
    return [Trouble(what=found.damage, do=do)]


def read_facts(home: Home) -> dict[str, float] | None:
    """What the journal remembers; None when it is there and cannot be read."""
    if not home.journal.exists():
        return {}
    try:
        with closing(open_readonly(home.journal, what="journal")) as db:
            return {str(name): float(value) for name, value in db.execute("SELECT * FROM facts")}
    except (JournalError, sqlite3.Error):
        return None
