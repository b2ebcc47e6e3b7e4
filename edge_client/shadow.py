"""A candidate beside the active model: on copies of its inputs, compared, answers thrown away.

One thread, within a share of a core. What it cannot keep up with is not copied, so that the
active model's requests pay for what is compared and for nothing else.
"""

from __future__ import annotations

import logging
import queue
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge_client.busy import Busy
from edge_client.classify import is_scores
from edge_client.errors import InferenceError, InputError
from edge_client.inference import Array, Loaded
from edge_client.meter import Meter
from schemas.ids import Name

MAX_WAITING = 16
MAX_BYTES = 16 * 1024**2
"""Inputs and answers that wait, together."""

BURST_SECONDS = 0.02
"""CPU time that may be used ahead of the share."""

NEWEST = 256
SHADOWING = "a shadow's inference"

log = logging.getLogger(__name__)


class _Copy(NamedTuple):
    """active: what answered. seconds: that it took, per sample."""

    active: Loaded
    feed: dict[str, Array]
    raw: list[Array]
    n: int
    size: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a shadow did.

    compared: samples, errors among them; skipped: not compared for want of CPU time. median,
    before: seconds per sample of the candidate and of the active model.
    """

    compared: int = 0
    agreed: int = 0
    errors: int = 0
    skipped: int = 0
    median: float | None = None
    before: float | None = None


class Shadow:
    """One candidate at work. ``offer`` is called from any thread, the rest from one."""

    def __init__(
        self,
        loaded: Loaded,
        meter: Meter,
        *,
        busy: Busy,
        cpu_share: float,
        steady: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        """Begin.

        Args:
            loaded: the candidate.
            meter: hears of what it does, in the role of a shadow.
            busy: hears when it runs.
            cpu_share: of one core.
            steady: seconds that only grow.
            cpu: CPU seconds of the calling thread.
        """
        self.loaded = loaded
        self.model: Name = loaded.slot.model
        self._meter, self._busy, self._share = meter, busy, cpu_share
        self._steady, self._cpu = steady, cpu
        self._tolerance = _tolerance_of(loaded)
        self._waiting: queue.SimpleQueue[_Copy | None] = queue.SimpleQueue()
        self._bytes = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._compared = self._agreed = self._errors = self._skipped = 0
        self._times: deque[float] = deque(maxlen=NEWEST)
        self._before: deque[float] = deque(maxlen=NEWEST)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(
        self, active: Loaded, feed: dict[str, Array], raw: Sequence[Array], n: int, seconds: float
    ) -> None:
        """Take a copy of what was just answered, if there is room for it."""
        size = sum(value.nbytes for value in (*feed.values(), *raw))
        if self._waiting.qsize() >= MAX_WAITING or self._bytes + size > MAX_BYTES:
            self._skipped += n  # racing threads may lose one: nothing is decided by it
            return
        try:
            copied = {name: value.copy() for name, value in feed.items()}
            answers = [value.copy() for value in raw]
        except MemoryError:  # who asked has an answer, and must get it
            self._skipped += n
            return
        with self._lock:
            self._bytes += size
        self._waiting.put(_Copy(active, copied, answers, n, size, seconds / (n or 1)))

    def seen(self) -> Seen:
        """What it did so far."""
        with self._lock:
            return Seen(
                compared=self._compared,
                agreed=self._agreed,
                errors=self._errors,
                skipped=self._skipped,
                median=statistics.median(self._times) if self._times else None,
                before=statistics.median(self._before) if self._before else None,
            )

    def close(self, timeout: float = 5.0) -> None:
        """End; an inference that is under way is waited for, at most ``timeout`` seconds."""
        self._stop.set()
        self._waiting.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        began, spent = self._steady(), self._cpu()
        while True:
            item = self._waiting.get()
            if item is None or self._stop.is_set():
                return
            ahead = (self._cpu() - spent) - self._share * (self._steady() - began)
            if ahead > BURST_SECONDS and self._stop.wait(ahead / self._share):
                return
            if ahead < 0:  # what was not used is not saved up
                began, spent = self._steady(), self._cpu()
            try:
                self._compare(item)
            except Exception:  # what cannot be compared must not pass for want of a comparison
                log.exception("a shadow's answers could not be compared")
                self._count(item, 0, errors=item.n)
            with self._lock:
                self._bytes -= item.size

    def _compare(self, item: _Copy) -> None:
        model = self.loaded.model
        self._busy.begin(SHADOWING, self.loaded.slot.sha256)
        start = time.perf_counter()
        try:
            feed = model.check(item.feed)
            raw = model.run(feed)
            model.finite(raw)
        except (InputError, InferenceError, MemoryError):
            self._meter.failed(self.loaded, item.n, role="shadow")
            self._count(item, 0, errors=item.n)
            return
        finally:
            self._busy.end()
        seconds = time.perf_counter() - start
        self._meter.served(
            self.loaded, feed=feed, raw=raw, n=item.n, seconds=seconds, role="shadow"
        )
        agreed = agreeing(item.active, item.raw, self.loaded, raw, item.n, self._tolerance)
        self._count(item, agreed, seconds=seconds / (item.n or 1))

    def _count(
        self, item: _Copy, agreed: int, *, errors: int = 0, seconds: float | None = None
    ) -> None:
        self._meter.compared(self.loaded, agreed, item.n)
        with self._lock:
            self._compared += item.n
            self._agreed += agreed
            self._errors += errors
            if seconds is not None:
                self._times.append(seconds)
                self._before.append(item.seconds)


def agreeing(
    active: Loaded,
    given: Sequence[Array],
    candidate: Loaded,
    raw: Sequence[Array],
    n: int,
    tolerance: float,
) -> int:
    """How many of n samples both answered alike.

    Classes, by their labels where both have some, for what gives scores over classes; else all
    outputs within ``tolerance`` of each other.
    """
    if is_scores(given[0], n) and is_scores(raw[0], n):
        one, other = given[0].argmax(axis=1), raw[0].argmax(axis=1)
        names, others = active.model.labels, candidate.model.labels
        if names and others and names != others:
            pairs = zip(one.tolist(), other.tolist(), strict=True)
            return sum(_named(names, a) == _named(others, b) for a, b in pairs)
        return int((one == other).sum())
    if len(given) != len(raw) or any(a.shape != b.shape for a, b in zip(given, raw, strict=True)):
        return 0
    close = np.ones(n, dtype=bool)
    for a, b in zip(given, raw, strict=True):
        off = np.abs(a.astype(np.float64) - b.astype(np.float64)) <= tolerance
        close &= off.reshape(n, -1).all(axis=1) if a.ndim and len(a) == n else off.all()
    return int(close.sum())


def _named(labels: tuple[str, ...], index: int) -> str | int:
    return labels[index] if index < len(labels) else index


def _tolerance_of(loaded: Loaded) -> float:
    variant = loaded.manifest.variant(loaded.slot.variant)
    return 0.0 if variant is None else variant.golden.tolerance
