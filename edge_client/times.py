"""How long inferences take on this device, by model file: its own past, to compare with.

Medians over the newest inferences, so that no single slow one counts; the first ones after a
load are left out, which allocate and are slow for every model. What is kept is one small file.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from edge_client.errors import UsageError
from edge_client.files import read_limited, write_atomic
from schemas.base import Wire
from schemas.ids import Sha256

WARM_UP = 3
"""Inferences after a load that are not counted."""

NEWEST = 256
ENOUGH = 10
"""Inferences of which a median is kept."""

MAX_FILES = 64
_LIMIT = 64 * 1024


class Kept(Wire):
    """Of one model file. median: seconds per sample, over the newest ``n`` inferences."""

    median: Annotated[float, Field(ge=0)]
    n: Annotated[int, Field(ge=1)]


class Past(Wire):
    """``times.json``: the newest last."""

    files: dict[Sha256, Kept] = Field(default_factory=dict)


class _Newest:
    """The newest times of one file since it was loaded."""

    def __init__(self) -> None:
        self.cold = WARM_UP
        self.seconds: deque[float] = deque(maxlen=NEWEST)

    def add(self, seconds: Iterable[float]) -> None:
        for one in seconds:
            if self.cold:
                self.cold -= 1
            else:
                self.seconds.append(one)


class Timer:
    """Takes times of the files that serve, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._past: dict[str, Kept] = {}
        self._newest: dict[str, _Newest] = {}

    def begin(self, sha256: str) -> None:
        """A file serves from now on, or was loaded again."""
        with self._lock:
            self._keep(sha256)
            self._newest[sha256] = _Newest()

    def end(self, sha256: str) -> None:
        """A file serves no more."""
        with self._lock:
            self._keep(sha256)
            self._newest.pop(sha256, None)

    def add(self, sha256: str, *seconds: float) -> None:
        """Inferences of a file took so long, per sample; of one that does not serve none count."""
        with self._lock:
            newest = self._newest.get(sha256)
            if newest is not None:
                newest.add(seconds)

    def now(self, sha256: str) -> tuple[int, float]:
        """(inferences, their median in seconds) of a file since it was loaded."""
        with self._lock:
            newest = self._newest.get(sha256)
            if newest is None or not newest.seconds:
                return (0, 0.0)
            return (len(newest.seconds), statistics.median(newest.seconds))

    def before(self, sha256: str) -> float | None:
        """The median that is kept of a file that served earlier; None when there is none."""
        with self._lock:
            kept = self._past.get(sha256)
            return None if kept is None else kept.median

    def past(self) -> Past:
        """What is worth keeping now."""
        with self._lock:
            for sha256 in self._newest:
                self._keep(sha256)
            return Past(files=dict(self._past))

    def recall(self, past: Past) -> None:
        """Take what was kept before a restart."""
        with self._lock:
            self._past = {**past.files, **self._past}

    def _keep(self, sha256: str) -> None:
        newest = self._newest.get(sha256)
        if newest is None or len(newest.seconds) < ENOUGH:
            return
        self._past.pop(sha256, None)
        median = statistics.median(newest.seconds)
        self._past[sha256] = Kept(median=median, n=len(newest.seconds))
        while len(self._past) > MAX_FILES:
            del self._past[next(iter(self._past))]


def read_past(path: Path) -> Past:
    """What was kept; nothing when the file is not there or not usable."""
    try:
        past = Past.model_validate_json(read_limited(path, _LIMIT))
    except (OSError, ValidationError, UsageError):
        return Past()
    return Past(files=dict(list(past.files.items())[-MAX_FILES:]))


def write_past(path: Path, past: Past) -> None:
    """Keep it.

    Raises:
        OSError: it could not be written; the old one stands.
    """
    write_atomic(path, past.model_dump_json().encode(), mode=0o600, durable=False)
