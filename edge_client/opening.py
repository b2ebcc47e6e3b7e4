"""Opening the databases of a home so that a damaged one does not keep a model from serving."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from edge_client.database import unusable
from edge_client.errors import JournalError
from edge_client.journal import Journal
from edge_client.sample_store import SampleStore, opt_in
from edge_client.settings import Home
from edge_client.spool import Spool
from edge_client.telemetry_buffer import Buffer
from schemas.ids import BootId, DeviceId

MEMORY = Path(":memory:")
"""SQLite's name for a database that is on no disk."""

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class DamagedError(JournalError):
    """The file is there, but is no sound database."""


def open_journal(home: Home, *, boot: BootId) -> tuple[Journal, str | None]:
    """Open the journal, or one in memory in place of one that cannot be used.

    That one holds what can be read, as on a disk that became read-only: what is on trial is not
    to serve where its starts cannot be counted, and the server is not to be told of a loss.

    Returns:
        The journal, and why it is not the one on the disk. With a reason nothing may be
        decided: the sequence floor is not known, so that an old offer would be taken.
    """
    try:
        return usable_journal(home, boot=boot), None
    except JournalError as error:
        hint = "free some room, or remove it and enroll the device anew"
        return _in_memory(home, boot=boot), f"{error}; {hint}"


def _in_memory(home: Home, *, boot: BootId) -> Journal:
    """A copy of the journal; an empty one where it cannot be read to its end."""
    journal = Journal(MEMORY, boot=boot)
    try:
        journal.copy(home.journal)
    except JournalError:
        journal.close()
        return Journal(MEMORY, boot=boot)
    return journal


def usable_journal(home: Home, *, boot: BootId) -> Journal:
    """Open the journal, and see that it can be read to its end.

    Raises:
        JournalError: it cannot be used.
    """
    _require_sound(home.journal, "journal")
    journal = Journal(home.journal, boot=boot)
    try:
        journal.load()
    except BaseException:
        journal.close()
        raise
    return journal


def open_buffer(path: Path, make: Callable[[Path], Buffer]) -> Buffer:
    """Open the telemetry buffer; a damaged file is put aside, and without room it is in memory."""
    return _open_or_memory(path, make, "telemetry buffer", "telemetry is kept in memory")


def open_spool(path: Path, *, device: DeviceId) -> Spool:
    """Open the bench reports, likewise."""
    make = partial(Spool, device=device)
    return _open_or_memory(path, make, "bench file", "no bench report is sent")


def open_samples(path: Path, per_hour: int) -> SampleStore | None:
    """Take up what the operator opted in to; without it nothing is opened or written."""
    try:
        opt_in(path, per_hour)
        return SampleStore(path) if per_hour > 0 else None
    except (JournalError, OSError) as error:
        log.warning("%s; no samples are set aside until the next start", error)
        return None


def _open_or_memory(path: Path, make: Callable[[Path], _T], what: str, then: str) -> _T:
    try:
        try:
            _require_sound(path, what)
        except DamagedError as error:
            aside = _put_aside(path)
            log.warning("%s; it is kept as %s, and a new one is begun", error, aside.name)
        return make(path)
    except (JournalError, OSError) as error:
        log.warning("%s; %s until the next start", error, then)
        return make(MEMORY)


def _require_sound(path: Path, what: str) -> None:
    """Read a database through (https://sqlite.org/pragma.html#pragma_quick_check).

    Raises:
        DamagedError: it is damaged.
        JournalError: it cannot be read now.
    """
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        plain = unusable(what, path, error)
        if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise DamagedError(str(plain)) from error
        raise plain from error
    if found != "ok":
        raise DamagedError(str(unusable(what, path, ValueError(found))))


def _put_aside(path: Path) -> Path:
    """Rename a database with what SQLite keeps beside it; an older one is replaced."""
    aside = path.with_name(f"{path.name}.damaged")
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    return path.replace(aside)
