"""Telemetry: mergeable summaries of what devices infer, never the inputs.

A histogram has fixed logarithmic buckets, so that merging two is adding counts and
quantiles of a fleet are as exact as those of one device (DDSketch, Masson et al.,
VLDB 2019, with the bucket bounds fixed by protocol).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from schemas.base import Count, UtcTime, VersionNo, Wire
from schemas.ids import BootId, DeviceId, Name

GAMMA = 2 ** (1 / 8)
"""Each bucket's upper bound over its lower one: 9 % wide, so at most 4.5 % off."""

MIN_BUCKET = 0
MAX_BUCKET = 256
"""Bucket 0 ends at one unit (a microsecond for latencies), bucket 256 at 2**32."""

MAX_CLASSES = 10_000

Counts = Annotated[dict[int, Annotated[int, Field(ge=0)]], Field(max_length=MAX_BUCKET + 1)]


def bucket_of(value: float) -> int:
    """The bucket of a value: 0 for at most one unit, clamped at the last.

    Raises:
        ValueError: the value is NaN or negative.
    """
    if math.isnan(value) or value < 0:
        msg = f"a histogram takes values of at least 0, not {value}"
        raise ValueError(msg)
    if value <= 1:
        return MIN_BUCKET
    if math.isinf(value):
        return MAX_BUCKET
    return min(MAX_BUCKET, math.ceil(math.log(value) / math.log(GAMMA) - 1e-9))


def bucket_value(bucket: int) -> float:
    """The value that stands for a bucket: the geometric middle of its bounds."""
    return 1.0 if bucket <= MIN_BUCKET else GAMMA ** (bucket - 0.5)


def merge(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """The histogram of all the values of all of them."""
    total: dict[int, int] = {}
    for histogram in histograms:
        for bucket, count in histogram.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def quantile(histogram: Mapping[int, int], q: float) -> float | None:
    """The value below which a share ``q`` (0..1) of the values lies; None when empty."""
    n = sum(histogram.values())
    if n == 0:
        return None
    rank = max(1, math.ceil(q * n))
    seen = 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= rank:
            return bucket_value(bucket)
    return bucket_value(max(histogram))


class Window(Wire):
    """What one device inferred with one variant in one span of time.

    The key is (device, boot, seq): a repeat is stored once. n: inferences tried.
    errors: those of them that failed. latency_us: microseconds of single inferences.
    confidence: counts of the highest class probability in ten equal bins.
    labelled/correct: inferences whose true class the device knew. dropped: windows lost
    before this one because the device's buffer was full.
    """

    device: DeviceId
    boot: BootId
    seq: Count
    model: Name
    version: VersionNo
    variant: Name
    role: Literal["active", "shadow"] = "active"
    start: UtcTime
    seconds: Annotated[float, Field(ge=0, le=7 * 86400)]
    n: Count
    errors: Count = 0
    labelled: Count = 0
    correct: Count = 0
    latency_us: Counts = Field(default_factory=dict)
    confidence: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=10)] = ()
    classes: Annotated[dict[int, Annotated[int, Field(ge=0)]], Field(max_length=MAX_CLASSES)] = (
        Field(default_factory=dict)
    )
    provider: Annotated[str, StringConstraints(max_length=64)]
    rss_mb: Annotated[float, Field(ge=0)] | None = None
    cpu_seconds: Annotated[float, Field(ge=0)] | None = None
    dropped: Count = 0

    @model_validator(mode="after")
    def _consistent(self) -> Window:
        if max(self.labelled, self.errors) > self.n or self.correct > self.labelled:
            msg = "correct ≤ labelled ≤ n and errors ≤ n must hold"
            raise ValueError(msg)
        if any(not MIN_BUCKET <= b <= MAX_BUCKET for b in self.latency_us):
            msg = f"latency buckets lie in {MIN_BUCKET}..{MAX_BUCKET}"
            raise ValueError(msg)
        return self


class TelemetrySummary(Wire):
    """Windows added up: over one device, or over all when ``device`` is None."""

    model: Name
    version: int
    variant: Name | None = None
    device: DeviceId | None = None
    windows: int
    n: int
    errors: int
    labelled: int
    correct: int
    accuracy: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
