"""One trial: a file, what was measured of it, and how both are kept and read back."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from schemas.base import Wire
from schemas.measure import Accuracy
from schemas.model import Pass
from schemas.paired import Outcomes, compare
from workers.optimization.cache import Cache
from workers.optimization.measuring.evaluate import Scored
from workers.optimization.measuring.latency import Cost
from workers.optimization.point import Point
from workers.optimization.searching.budgets import Figures, Known

MODEL = "model.onnx"
RECORD = "trial.json"


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a point.

    path: its file; of what is not kept it goes with the search. size: in bytes. passes:
    that led to it from the trained weights. forced: operators that no form of it could
    quantize. failed: why there is nothing else.
    """

    point: Point
    path: Path | None = None
    passes: tuple[Pass, ...] = ()
    scored: Scored | None = None
    cost: Cost | None = None
    forced: tuple[str, ...] = ()
    failed: str | None = None
    size: int | None = None

    def known(self, reference: Outcomes | None, confidence: float, scale: float = 1.0) -> Known:
        """As the plan sees it.

        Args:
            reference: outcomes of the unpruned net in FP32.
            confidence: of the paired test.
            scale: of times, where they were taken at another time than the reference's.
        """
        both = self.scored is not None and reference is not None and self.failed is None
        return Known(
            point=self.point,
            accuracy=self.scored.accuracy.value if self.scored else None,
            paired=compare(reference, self.scored.outcomes, confidence)
            if both and reference is not None and self.scored is not None
            else None,
            figures=figures_of(self, scale),
            failed=self.failed,
        )


def figures_of(trial: Trial, scale: float = 1.0) -> Figures | None:
    """What a trial's file costs; None as long as it was not measured."""
    if trial.cost is None or trial.size is None:
        return None
    first = trial.cost.benchmarks[0]
    return Figures(
        size=trial.size,
        compressed=trial.cost.compressed_bytes,
        cpu_ms=trial.cost.cpu_ms * scale,
        p50_ms=first.p50_ms * scale,
        rss_mb=first.rss_growth_mb,
    )


class _Record(Wire):
    accuracy: Accuracy | None = None
    outcomes: str | None = None
    passes: tuple[Pass, ...] = ()
    forced: tuple[str, ...] = ()


def keep(cache: Cache, key: str, trial: Trial) -> Trial:
    """Put a trial that was made and scored into the cache; the same, with its file there."""
    if trial.path is None:
        return trial
    outcomes = trial.scored.outcomes.bits if trial.scored else None
    record = _Record(
        accuracy=trial.scored.accuracy if trial.scored else None,
        outcomes=None if outcomes is None else base64.b64encode(outcomes).decode(),
        passes=trial.passes,
        forced=trial.forced,
    )
    files = {MODEL: trial.path.read_bytes(), RECORD: record.model_dump_json().encode()}
    return replace(trial, path=cache.put(key, files) / MODEL)


def recall(cache: Cache, key: str, point: Point) -> Trial | None:
    """A trial of the cache, without its cost; None if it is not there or cannot be read."""
    folder = cache.get(key)
    if folder is None:
        return None
    try:
        record = _Record.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
    scored = None
    if record.accuracy is not None and record.outcomes is not None:
        bits = base64.b64decode(record.outcomes)
        scored = Scored(record.accuracy, Outcomes(record.accuracy.n, bits))
    return Trial(point, folder / MODEL, record.passes, scored, forced=record.forced)


def first_line(error: BaseException) -> str:
    """An exception as a reason, on one line."""
    lines: Sequence[str] = str(error).strip().splitlines() or ["no message"]
    return f"it cannot be made or does not run: {type(error).__name__}: {lines[0][:300]}"
