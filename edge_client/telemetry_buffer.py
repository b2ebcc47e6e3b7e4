"""Windows on the disk until the broker has them: one file for all processes of a device.

SQLite's transactions are the lock between the processes. A process's windows, how far it has
numbered them and how much of its bare counts is in windows are written together, so that what a
killed process leaves in its live counts is exactly what is not in windows.

The buffer is bounded: when it is full the oldest windows go, and the next one says how many.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from edge_client.clock_sync import Sync
from edge_client.database import open_database, transaction
from edge_client.errors import JournalError
from edge_client.live_layout import Totals
from edge_client.telemetry_rows import SCHEMA, Entry, Waiting, pack, read_row
from edge_client.telemetry_upgrade import replace_old

MOST_WINDOWS = 20_000
MOST_BYTES = 16 * 1024 * 1024
MOST_PROCESSES = 1024
MOST_MACHINES = 64
NO_MARKS: Mapping[int, Totals] = MappingProxyType({})


class Buffer:
    """A device's windows. Used from one thread of a process at a time; processes share it."""

    def __init__(
        self,
        path: Path,
        *,
        most: int = MOST_WINDOWS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Open or create.

        Args:
            path: the file.
            most: windows that are kept.
            most_bytes: bytes of windows that are kept.

        Raises:
            JournalError: the file cannot be used.
        """
        self._path, self._most, self._most_bytes = path, most, most_bytes
        self._seq: dict[bytes, int] = {}
        self._open()

    def _open(self) -> None:
        replace_old(self._path, SCHEMA)
        self._db = open_database(self._path, SCHEMA, what="telemetry buffer", synchronous="FULL")
        self.store = bytes(self._db.execute("SELECT name FROM store").fetchone()[0])
        self._inode = _inode(self._path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def in_memory(self) -> bool:
        """Whether it is on no disk, and gone with the process."""
        return str(self._path) == ":memory:"

    def reopen(self) -> bool:
        """Open the file anew if another one is in its place, as after damage; True if so.

        Raises:
            JournalError: it cannot be used.
        """
        if self.in_memory or _inode(self._path) == self._inode:
            return False
        self._db.close()
        self._open()
        return True

    def put(
        self,
        boot: bytes,
        entries: Sequence[Entry],
        *,
        dropped: int = 0,
        marks: Mapping[int, Totals] = NO_MARKS,
    ) -> None:
        """Keep windows of a process, all or none, dropping the oldest where there is no room.

        Args:
            boot: of the process.
            entries: its windows, oldest first; a repeat of totals that are written says no more.
            dropped: windows of it that were lost before.
            marks: how much of its records is in windows already, in another file than this.

        Raises:
            JournalError: they could not be written.
        """
        if not entries and not dropped and not marks:
            return
        try:
            with transaction(self._db):
                for serial, totals in marks.items():
                    self._mark(boot, serial, totals)
                seq = self._put(boot, entries, dropped)
        except (sqlite3.Error, msgspec.MsgspecError, OverflowError) as error:
            msg = f"telemetry windows could not be kept: {error}"
            raise JournalError(msg) from error
        self._seq[boot] = seq

    def marks(self, boot: bytes) -> dict[int, Totals]:
        """How much of each record of a process's live counts is in windows."""
        rows = self._db.execute(
            "SELECT serial, n, errors, rejected, shed FROM marks WHERE boot = ?", (boot,)
        )
        return {
            int(serial): Totals(n=n, errors=errors, rejected=rejected, shed=shed)
            for serial, n, errors, rejected, shed in rows
        }

    def forget(self, boot: bytes) -> None:
        """A process is over, and all that it counted is in windows."""
        with transaction(self._db):
            self._db.execute("DELETE FROM marks WHERE boot = ?", (boot,))
            self._db.execute("DELETE FROM processes WHERE boot = ?", (boot,))

    def tidy(self, known: Collection[bytes]) -> None:
        """Forget the oldest processes of too many, except those known to live."""
        rows = self._db.execute("SELECT boot FROM processes ORDER BY rowid").fetchall()
        gone = [bytes(row[0]) for row in rows if bytes(row[0]) not in known]
        for boot in gone[: max(0, len(rows) - MOST_PROCESSES)]:
            self.forget(boot)

    def waiting(self, limit: int, *, without: Collection[int] = ()) -> list[Waiting]:
        """The oldest windows that are not among those; what cannot be read is dropped."""
        rows = self._db.execute(
            "SELECT id, about, body, machine, steady, date FROM windows"
            " WHERE id NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?",
            (json.dumps(list(without)), limit),
        ).fetchall()
        found, unreadable = [], []
        for row in rows:
            try:
                found.append(read_row(row))
            except (msgspec.MsgspecError, TypeError, ValueError):
                unreadable.append((int(row[0]),))
        if unreadable:  # as after bits flipped: SQLite has no checksums
            with transaction(self._db):
                self._db.executemany("DELETE FROM windows WHERE id = ?", unreadable)
                self._db.execute("UPDATE store SET lost = lost + ?", (len(unreadable),))
            return self.waiting(limit, without=without)
        return found

    def arrived(self, ids: Collection[int]) -> None:
        """Forget windows that the broker has for good."""
        with transaction(self._db):
            self._db.executemany("DELETE FROM windows WHERE id = ?", [(one,) for one in ids])

    def synced(self, machine: bytes, sync: Sync) -> None:
        """Remember what the server's clock said in a start of the machine."""
        with transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO clocks VALUES (?, ?, ?, ?)",
                (machine, sync.offset, sync.error, sync.at),
            )
            self._db.execute(
                "DELETE FROM clocks WHERE rowid NOT IN"
                " (SELECT rowid FROM clocks ORDER BY rowid DESC LIMIT ?)",
                (MOST_MACHINES,),
            )

    def sync(self, machine: bytes) -> Sync | None:
        """What the server's clock said in a start of the machine, if it was reached in it."""
        row = self._db.execute(
            "SELECT offset, error, at FROM clocks WHERE machine = ?", (machine,)
        ).fetchone()
        return None if row is None else Sync(offset=row[0], error=row[1], at=row[2])

    def __len__(self) -> int:
        return int(self._db.execute("SELECT n FROM store").fetchone()[0])

    # --- inside a transaction -----------------------------------------------------------

    def _put(self, boot: bytes, entries: Sequence[Entry], dropped: int) -> int:
        row = self._db.execute("SELECT seq FROM processes WHERE boot = ?", (boot,)).fetchone()
        seq = max(self._seq.get(boot, 0), 0 if row is None else int(row[0]))
        self._db.execute("UPDATE store SET lost = lost + ?", (dropped,))
        for entry in entries:
            about = pack(entry.about)
            size = len(about) + len(pack(entry.window))
            self._make_room(size)
            lost = int(self._db.execute("SELECT lost FROM store").fetchone()[0])
            window = msgspec.structs.replace(entry.window, seq=seq, dropped=lost)
            self._db.execute(
                "INSERT INTO windows (boot, machine, steady, date, about, body, dropped)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    boot,
                    entry.machine,
                    entry.steady,
                    entry.date,
                    about,
                    pack(window),
                    lost,
                ),
            )
            self._db.execute("UPDATE store SET lost = 0")
            seq += 1
            if entry.serial:
                self._mark(boot, entry.serial, entry.totals)
        self._db.execute("INSERT OR REPLACE INTO processes VALUES (?, ?)", (boot, seq))
        return seq

    def _mark(self, boot: bytes, serial: int, totals: Totals) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?)",
            (boot, serial, totals.n, totals.errors, totals.rejected, totals.shed),
        )

    def _make_room(self, size: int) -> None:
        while True:
            n, held = self._db.execute("SELECT n, bytes FROM store").fetchone()
            if n == 0 or (n < self._most and held + size <= self._most_bytes):
                return
            over = max(1, n - self._most + 1, n // 64 if held + size > self._most_bytes else 0)
            rows = self._db.execute(
                "DELETE FROM windows WHERE id IN"
                " (SELECT id FROM windows ORDER BY id LIMIT ?) RETURNING dropped",
                (over,),
            ).fetchall()
            gone = sum(1 + int(row[0]) for row in rows)
            self._db.execute("UPDATE store SET lost = lost + ?", (gone,))


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
