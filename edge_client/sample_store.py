"""Samples on the disk until they are sent. The file is there only where the operator opted in."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_client.database import open_database, open_readonly, transaction
from edge_client.errors import JournalError
from edge_client.samples import Held
from edge_client.slots import Slot
from schemas.sample import Sample

MOST_SAMPLES = 2000
MOST_BYTES = 64 * 1024 * 1024

_WHAT = "file of samples"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (
  id INTEGER PRIMARY KEY AUTOINCREMENT, machine BLOB NOT NULL, steady REAL NOT NULL,
  date REAL NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS quota (
  id INTEGER PRIMARY KEY CHECK (id = 1), per_hour INTEGER NOT NULL);
INSERT OR IGNORE INTO quota VALUES (1, 0);
CREATE TABLE IF NOT EXISTS sent (
  model TEXT NOT NULL, version INTEGER NOT NULL, variant TEXT NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (model, version, variant));
CREATE TABLE IF NOT EXISTS seqs (boot BLOB PRIMARY KEY, seq INTEGER NOT NULL);
"""

_decoder = msgspec.msgpack.Decoder(Sample)
_encoder = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A sample on the disk. steady, date: when it was, as in a window."""

    id: int
    sample: Sample
    machine: bytes
    steady: float
    date: float


def opt_in(path: Path, per_hour: int) -> None:
    """Write down what the operator wants; 0 removes the file with all that was not sent.

    Raises:
        JournalError: the file cannot be used.
    """
    if per_hour <= 0:
        for end in ("", "-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
        return
    with contextlib.closing(open_database(path, _SCHEMA, what=_WHAT, synchronous="NORMAL")) as db:
        path.chmod(0o600)
        with transaction(db):
            db.execute("UPDATE quota SET per_hour = ?", (per_hour,))


def quota_of(path: Path) -> int:
    """How many samples an hour of each model and stream the operator wants; 0 without a file."""
    if not path.exists():
        return 0
    try:
        with contextlib.closing(open_readonly(path, what=_WHAT)) as db:
            return int(db.execute("SELECT per_hour FROM quota").fetchone()[0])
    except (sqlite3.Error, JournalError, TypeError):
        return 0


class SampleStore:
    """A device's samples. Used from one thread of a process at a time; processes share it."""

    def __init__(
        self, path: Path, *, most: int = MOST_SAMPLES, most_bytes: int = MOST_BYTES
    ) -> None:
        """Open. most, most_bytes: of samples that are kept; then the oldest go.

        Raises:
            JournalError: the file cannot be used.
        """
        self._most, self._most_bytes = most, most_bytes
        self._seq = 0
        self._db = open_database(path, _SCHEMA, what=_WHAT, synchronous="NORMAL")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def put(self, boot: bytes, machine: bytes, samples: Sequence[Held]) -> None:
        """Keep samples of a process, all or none.

        Raises:
            JournalError: they could not be written; they are lost, and nothing else is.
        """
        if not samples:
            return
        try:
            with transaction(self._db):
                row = self._db.execute("SELECT seq FROM seqs WHERE boot = ?", (boot,)).fetchone()
                seq = max(self._seq, 0 if row is None else int(row[0]))
                for held in samples:
                    body = _encoder.encode(held.message(boot=boot, seq=seq))
                    self._db.execute(
                        "INSERT INTO samples (machine, steady, date, body) VALUES (?, ?, ?, ?)",
                        (machine, held.at[1], held.at[0], body),
                    )
                    seq += 1
                self._db.execute("INSERT OR REPLACE INTO seqs VALUES (?, ?)", (boot, seq))
                self._make_room()
        except sqlite3.Error as error:
            msg = f"samples could not be kept: {error}"
            raise JournalError(msg) from error
        self._seq = seq

    def waiting(self, limit: int, *, after: int = 0) -> list[Kept]:
        """The oldest samples beyond id ``after``."""
        rows = self._db.execute(
            "SELECT id, body, machine, steady, date FROM samples WHERE id > ? ORDER BY id LIMIT ?",
            (after, limit),
        ).fetchall()
        return [
            Kept(
                id=row[0],
                sample=_decoder.decode(row[1]),
                machine=bytes(row[2]),
                steady=row[3],
                date=row[4],
            )
            for row in rows
        ]

    def arrived(self, ids: Collection[int]) -> None:
        """Forget samples that the broker has for good, and count them as sent."""
        with transaction(self._db):
            for one in ids:
                row = self._db.execute(
                    "DELETE FROM samples WHERE id = ? RETURNING body", (one,)
                ).fetchone()
                if row is not None:
                    sample = _decoder.decode(row[0])
                    self._db.execute(
                        "INSERT INTO sent VALUES (?, ?, ?, 1)"
                        " ON CONFLICT (model, version, variant) DO UPDATE SET n = n + 1",
                        (sample.model, sample.version, sample.variant),
                    )

    def take_sent(self, slot: Slot) -> int:
        """How many of a slot were sent since this was asked."""
        try:
            row = self._db.execute(
                "DELETE FROM sent WHERE model = ? AND version = ? AND variant = ? RETURNING n",
                (slot.model, slot.version, slot.variant),
            ).fetchone()
        except sqlite3.Error:
            return 0
        return 0 if row is None else int(row[0])

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM samples").fetchone()[0])

    def _make_room(self) -> None:
        while True:
            n, held = self._db.execute(
                "SELECT count(*), total(length(body)) FROM samples"
            ).fetchone()
            if n <= self._most and held <= self._most_bytes:
                return
            over = max(1, n - self._most)
            self._db.execute(
                "DELETE FROM samples WHERE id IN (SELECT id FROM samples ORDER BY id LIMIT ?)",
                (over,),
            )
