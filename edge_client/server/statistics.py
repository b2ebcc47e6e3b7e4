"""What the local server answered, by version: the figures of the statistics extension.

Counted from the start of the process, for whoever looks at this device. Telemetry counts for
itself, and all ways of inferring.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import msgspec

from edge_client.server.messages import Duration, InferStatistics, ModelStatistics

MAX_VERSIONS = 64
"""Versions that are remembered; the one that was asked longest ago goes first."""


@dataclass(slots=True)
class _Figures:
    requests: int = 0
    failed: int = 0
    samples: int = 0
    runs: float = 0.0
    last_ms: int = 0
    success: float = 0.0
    fail: float = 0.0
    queue: float = 0.0
    read: float = 0.0
    infer: float = 0.0
    write: float = 0.0


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Where the seconds of a request went.

    read: its bytes became arrays. queue: it waited. infer: the model ran. runs: the share of a
    run of onnxruntime that was for it, below 1 where others were run with it.
    """

    read: float = 0.0
    queue: float = 0.0
    infer: float = 0.0
    runs: float = 1.0


class Statistics:
    """Counters by (model, version). Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures: dict[tuple[str, int], _Figures] = {}

    def succeeded(self, key: tuple[str, int], n: int, times: Times, written: float) -> None:
        """A request of n samples was answered. written: seconds that its answer took to write."""
        total = times.read + times.queue + times.infer + written
        with self._lock:
            figures = self._of(key)
            figures.requests += 1
            figures.samples += n
            figures.runs += times.runs
            figures.last_ms = time.time_ns() // 1_000_000
            figures.success += total
            figures.queue += times.queue
            figures.read += times.read
            figures.infer += times.infer
            figures.write += written

    def failed(self, key: tuple[str, int], seconds: float) -> None:
        """A request to a version got no result."""
        with self._lock:
            figures = self._of(key)
            figures.failed += 1
            figures.fail += seconds

    def of(self, key: tuple[str, int]) -> ModelStatistics:
        """The figures of a version; zeros where it was never asked."""
        with self._lock:
            figures = self._figures.get(key, _Figures())
            count = figures.requests
            return ModelStatistics(
                name=key[0],
                version=str(key[1]),
                last_inference=figures.last_ms,
                inference_count=figures.samples,
                execution_count=round(figures.runs),
                inference_stats=InferStatistics(
                    success=Duration(count, _ns(figures.success)),
                    fail=Duration(figures.failed, _ns(figures.fail)),
                    queue=Duration(count, _ns(figures.queue)),
                    compute_input=Duration(count, _ns(figures.read)),
                    compute_infer=Duration(count, _ns(figures.infer)),
                    compute_output=Duration(count, _ns(figures.write)),
                ),
            )

    def _of(self, key: tuple[str, int]) -> _Figures:
        figures = self._figures.get(key)
        if figures is None:
            while len(self._figures) >= MAX_VERSIONS:
                del self._figures[next(iter(self._figures))]
            figures = self._figures[key] = _Figures()
        return figures


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
