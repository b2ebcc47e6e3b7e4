"""Telemetry: inferences added up in windows, and the buffer they wait in.

Histograms have the fixed buckets of ``schemas.telemetry``. The buffer is bounded: when
it is full the oldest window goes, and the next one says how many went before it. A window
that could not be written is counted the same way, by the next one that can be.
"""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge_client.database import open_database, transaction
from edge_client.errors import JournalError
from edge_client.inference import Loaded, Prediction
from edge_client.slots import Slot
from schemas.ids import BootId, DeviceId
from schemas.telemetry import MAX_CLASSES, Window, bucket_of

BINS = 10


@dataclass(slots=True)
class Tally:
    """What one model did since ``start``. steady: seconds of a steady clock."""

    slot: Slot
    provider: str
    start: dt.datetime
    steady: float
    cpu: float
    n: int = 0
    errors: int = 0
    labelled: int = 0
    correct: int = 0
    latency_us: Counter[int] = field(default_factory=Counter)
    confidence: list[int] = field(default_factory=lambda: [0] * BINS)
    classes: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float, prediction: Prediction, truth: int | None) -> None:
        """Count an answered batch; each sample waited for the whole of it."""
        self.n += prediction.n
        self.latency_us[bucket_of(seconds * 1e6)] += prediction.n
        if prediction.classes is None or prediction.confidence is None:
            return
        for index, probability in zip(prediction.classes, prediction.confidence, strict=True):
            if int(index) in self.classes or len(self.classes) < MAX_CLASSES:
                self.classes[int(index)] += 1
            self.confidence[min(BINS - 1, int(float(probability) * BINS))] += 1
        if truth is not None and prediction.n == 1:
            self.labelled += 1
            self.correct += int(prediction.classes[0] == truth)


@dataclass(frozen=True, slots=True)
class Clocks:
    """Where time comes from: the date, a steady clock, and this process's CPU time."""

    date: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
    steady: Callable[[], float] = time.monotonic
    cpu: Callable[[], float] = time.process_time


class Windows:
    """The windows that are open. Fed from any thread, cut by one."""

    def __init__(self, clocks: Clocks | None = None) -> None:
        self._clocks = clocks or Clocks()
        self._lock = threading.Lock()
        self._open: Tally | None = None
        self._closed: list[tuple[Tally, float, float]] = []

    def served(
        self, loaded: Loaded, seconds: float, prediction: Prediction, truth: int | None
    ) -> None:
        """Count an answered batch."""
        with self._lock:
            self._tally(loaded).add(seconds, prediction, truth)

    def failed(self, loaded: Loaded) -> None:
        """Count a failed inference."""
        with self._lock:
            tally = self._tally(loaded)
            tally.n += 1
            tally.errors += 1

    def cut(self) -> list[tuple[Tally, float, float]]:
        """Close the open window. Each with its seconds and its CPU seconds."""
        with self._lock:
            self._close()
            closed, self._closed = self._closed, []
            return closed

    def _tally(self, loaded: Loaded) -> Tally:
        if self._open is None or self._open.slot != loaded.slot:
            self._close()
            self._open = Tally(
                slot=loaded.slot,
                provider=loaded.model.provider,
                start=self._clocks.date(),
                steady=self._clocks.steady(),
                cpu=self._clocks.cpu(),
            )
        return self._open

    def _close(self) -> None:
        tally, self._open = self._open, None
        if tally is not None:
            seconds = max(0.0, self._clocks.steady() - tally.steady)
            self._closed.append((tally, seconds, max(0.0, self._clocks.cpu() - tally.cpu)))


def rss_mb(statm: Path = Path("/proc/self/statm")) -> float | None:
    """Resident memory of this process in MiB, from Linux's procfs."""
    try:
        pages = int(statm.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


_SCHEMA = """
CREATE TABLE IF NOT EXISTS windows (
  id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL, dropped INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS lost (id INTEGER PRIMARY KEY CHECK (id = 1), n INTEGER NOT NULL);
INSERT OR IGNORE INTO lost VALUES (1, 0);
"""


class Buffer:
    """Windows on the disk until the broker has them. Used from one thread."""

    def __init__(self, path: Path, *, device: DeviceId, boot: BootId, most: int) -> None:
        """Open or create; ``most`` windows are kept.

        Raises:
            JournalError: the file cannot be used.
        """
        self._device, self._boot, self._most, self._seq = device, boot, most, 0
        self._unwritten = 0
        self._db = open_database(path, _SCHEMA, what="telemetry buffer", synchronous="NORMAL")

    def close(self) -> None:
        """Close the file, noting in it what could not be written."""
        if self._unwritten:
            with suppress(sqlite3.Error):
                self._db.execute("UPDATE lost SET n = n + ?", (self._unwritten,))
        self._db.close()

    def put(self, tally: Tally, seconds: float, cpu_seconds: float) -> None:
        """Keep a window, dropping the oldest when there is no room.

        Raises:
            JournalError: it could not be written; the next one counts it as lost.
        """
        try:
            with transaction(self._db):
                self._make_room()
                lost = int(self._db.execute("SELECT n FROM lost").fetchone()[0])
                lost += self._unwritten
                window = self._window(tally, seconds, cpu_seconds, lost)
                self._db.execute(
                    "INSERT INTO windows (body, dropped) VALUES (?, ?)",
                    (window.model_dump_json(exclude_none=True), lost),
                )
                self._db.execute("UPDATE lost SET n = 0")
        except (sqlite3.Error, ValueError) as error:
            self._unwritten += 1
            msg = f"a telemetry window could not be kept: {error}"
            raise JournalError(msg) from error
        self._seq += 1
        self._unwritten = 0

    def waiting(self, limit: int, *, after: int = 0) -> list[tuple[int, str]]:
        """The oldest windows beyond id ``after``: (id, JSON)."""
        rows = self._db.execute(
            "SELECT id, body FROM windows WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
        )
        return [(int(row[0]), str(row[1])) for row in rows]

    def arrived(self, window_id: int) -> None:
        """Forget a window that the broker has acknowledged."""
        self._db.execute("DELETE FROM windows WHERE id = ?", (window_id,))

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM windows").fetchone()[0])

    def _make_room(self) -> None:
        over = len(self) - self._most + 1
        if over > 0:
            rows = self._db.execute(
                "DELETE FROM windows WHERE id IN"
                " (SELECT id FROM windows ORDER BY id LIMIT ?) RETURNING dropped",
                (over,),
            ).fetchall()
            gone = sum(1 + int(row[0]) for row in rows)
            self._db.execute("UPDATE lost SET n = n + ?", (gone,))

    def _window(self, tally: Tally, seconds: float, cpu_seconds: float, lost: int) -> Window:
        return Window(
            device=self._device,
            boot=self._boot,
            seq=self._seq,
            model=tally.slot.model,
            version=tally.slot.version,
            variant=tally.slot.variant,
            start=tally.start,
            seconds=seconds,
            n=tally.n,
            errors=tally.errors,
            labelled=tally.labelled,
            correct=tally.correct,
            latency_us=dict(tally.latency_us),
            confidence=tuple(tally.confidence),
            classes=dict(tally.classes),
            provider=tally.provider,
            rss_mb=rss_mb(),
            cpu_seconds=cpu_seconds,
            dropped=lost,
        )
