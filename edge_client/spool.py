"""Bench reports on the disk: written by whoever measures, sent by the agent.

``argosy-edge bench`` works while the agent runs and holds its lock, so this file is the one
place where both write: SQLite, whose transactions are the lock between them. A report stays
after it has arrived, as the memory of what was measured; a newer one takes its place.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from edge_client.database import open_database, transaction, unusable
from schemas.ids import DeviceId
from schemas.measure import BenchReport

MOST = 64
"""Reports that are kept: of the variants measured last."""

_WHAT = "bench file"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS reports (
  id INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, sha256 TEXT NOT NULL,
  ort TEXT NOT NULL, body TEXT NOT NULL, sent INTEGER NOT NULL DEFAULT 0);
"""

log = logging.getLogger(__name__)


class Spool:
    """A device's bench reports. Used from one thread of a process; processes may share it."""

    def __init__(self, path: Path, *, device: DeviceId) -> None:
        """Open or create.

        Raises:
            JournalError: the file cannot be used.
        """
        self._device, self._path, self._told = device, path, False
        self._db = open_database(path, _SCHEMA, what=_WHAT, synchronous="FULL")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def put(self, report: BenchReport) -> None:
        """Keep a report to be sent; what was known of its file goes.

        It gets a new number, so that the arrival of the older one does not count for it.

        Raises:
            JournalError: it could not be written.
        """
        key = (self._device, report.sha256)
        ort = report.benchmarks[0].ort or ""
        body = report.model_dump_json(exclude_none=True)
        try:
            with transaction(self._db):
                self._db.execute("DELETE FROM reports WHERE device = ? AND sha256 = ?", key)
                self._db.execute(
                    "INSERT INTO reports (device, sha256, ort, body) VALUES (?, ?, ?, ?)",
                    (*key, ort, body),
                )
                self._db.execute(
                    "DELETE FROM reports WHERE id NOT IN"
                    " (SELECT id FROM reports ORDER BY id DESC LIMIT ?)",
                    (MOST,),
                )
        except sqlite3.Error as error:
            raise unusable(_WHAT, self._path, error) from error

    def waiting(self, limit: int) -> list[tuple[int, str]]:
        """The oldest reports that have not arrived: (id, JSON).

        None when the file cannot be read: serving and updates must not suffer from it.
        """
        try:
            rows = self._db.execute(
                "SELECT id, body FROM reports WHERE device = ? AND sent = 0 ORDER BY id LIMIT ?",
                (self._device, limit),
            ).fetchall()
        except sqlite3.Error as error:
            self._tell(error)
            return []
        self._told = False
        return [(int(row[0]), str(row[1])) for row in rows]

    def arrived(self, report_id: int) -> None:
        """Remember that the broker has acknowledged a report."""
        try:
            self._db.execute("UPDATE reports SET sent = 1 WHERE id = ?", (report_id,))
        except sqlite3.Error as error:
            self._tell(error)  # it is sent again, which changes nothing

    def knows(self, sha256: str, ort: str) -> bool:
        """Whether a file was measured on this device with this version of ONNX Runtime."""
        try:
            found = self._db.execute(
                "SELECT 1 FROM reports WHERE device = ? AND sha256 = ? AND ort = ?",
                (self._device, sha256, ort),
            ).fetchone()
        except sqlite3.Error as error:
            self._tell(error)
            return True  # do not measure what could not be kept
        return found is not None

    def _tell(self, error: sqlite3.Error) -> None:
        if not self._told:
            self._told = True
            log.warning("%s", unusable(_WHAT, self._path, error))
