"""Telemetry: mergeable summaries of what devices infer, never the inputs.

A histogram has fixed logarithmic buckets, so that merging two is adding counts and
quantiles of a fleet are as exact as those of one device (DDSketch, Masson et al.,
VLDB 2019, with the bucket bounds fixed by protocol).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from schemas.base import UtcTime, Wire
from schemas.ids import BootId, DeviceId, Name

GAMMA = 2 ** (1 / 8)
"""Each bucket's upper bound over its lower one: 9 % wide, so at most 4.5 % off."""

MIN_BUCKET = 0
MAX_BUCKET = 256
"""Bucket 0 ends at one unit (a microsecond for latencies), bucket 256 at 2**32."""

MAX_CLASSES = 10_000


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


class Quantiles(Wire):
    """Milliseconds below which a share of the values lies; None without any value."""

    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class TelemetrySummary(Quantiles):
    """Windows added up, by variant, and by one thing more where one was asked for.

    device, device_class, tag: what it is of; None: of all. since, until: the whole hours that
    it covers, as far as they are known. p50_ms … p99_ms: latency of a sample in the model.
    n: samples tried, with the ``lost`` ones, of which nothing else is known than that they did not
    fail; errors over n is error_rate. rejected, shed: samples beyond n; their rates are shares of
    all that came.
    seconds: the length of the windows, over all processes; per_second: n over it.
    energy: joules of 1,000 samples, measured (RAPL or a meter) and estimated kept apart.
    bytes_saved: what uploading the inputs would have cost, less what telemetry cost.
    agreement: of a shadow, the share of samples that it answered as the active model did.
    providers: samples by the execution provider that ran them; fallbacks: of them, where
    another one was asked for, by that one. classes: counts by class, the most frequent.
    confidence, entropy: in ten equal bins. moved: windows whose time could not be true.
    """

    model: Name
    version: int
    variant: Name | None = None
    role: Literal["active", "shadow"] = "active"
    device: DeviceId | None = None
    device_class: Name | None = None
    tag: Name | None = None
    since: UtcTime | None = None
    until: UtcTime | None = None
    windows: int
    n: int
    errors: int
    labelled: int
    correct: int
    accuracy: float | None = None
    lost: int = 0
    rejected: int = 0
    shed: int = 0
    cold: int = 0
    dropped: int = 0
    error_rate: float | None = None
    rejected_rate: float | None = None
    shed_rate: float | None = None
    queue: Quantiles = Quantiles()
    mean_batch: float | None = None
    seconds: float = 0.0
    per_second: float | None = None
    joules_per_1000_measured: float | None = None
    joules_per_1000_estimated: float | None = None
    raw_bytes: int = 0
    telemetry_bytes: int = 0
    bytes_saved: int = 0
    compared: int = 0
    agreement: float | None = None
    providers: dict[str, int] = Field(default_factory=dict)
    fallbacks: dict[str, int] = Field(default_factory=dict)
    nodes: dict[str, int] = Field(default_factory=dict)
    classes: dict[int, int] = Field(default_factory=dict)
    confidence: tuple[int, ...] = ()
    entropy: tuple[int, ...] = ()
    rss_mib: int | None = None
    celsius: int | None = None
    cpu_seconds: float = 0.0
    sampled: int = 0
    sent: int = 0
    unsynced: int = 0
    moved: int = 0


class TelemetryPoint(TelemetrySummary):
    """A summary of one bucket of time. at: its begin; bucket_seconds: its length."""

    at: UtcTime
    bucket_seconds: int


class FeatureView(Wire):
    """How an input statistic is distributed on devices, beside the training data.

    edges, expected, counts: bins of the manifest's baseline, its counts and the devices'; the
    three outside of them come apart: under, over, nan, with ``expected_outside`` in that order.
    psi: population stability index; chance: what it would be on average if nothing had changed.
    It explains an alarm and raises none.
    """

    model: Name
    version: int
    variant: Name
    name: str
    edges: tuple[float, ...]
    expected: tuple[int, ...]
    expected_outside: tuple[int, int, int]
    counts: tuple[int, ...]
    under: int = 0
    over: int = 0
    nan: int = 0
    psi: float | None = None
    chance: float | None = None


class SampleInput(Wire):
    """One input of a sample: its bytes in C order, as base64."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: str


class SampleView(Wire):
    """An input that a device gave away (``schemas.sample``).

    inputs: empty where only the facts were asked for. moved: its time could not be true.
    bytes: of the message.
    """

    device: DeviceId
    boot: BootId
    seq: int
    model: Name
    version: int
    variant: Name
    stream: Literal["uniform", "uncertain"]
    probability: float
    at: UtcTime
    moved: bool = False
    predicted: int | None = None
    confidence: float | None = None
    truth: int | None = None
    bytes: int
    inputs: tuple[SampleInput, ...] = ()
