"""Gates: what a wave must show, and the evidence that its verdict rests on."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import MAX_INTEGER, Authored, Wire
from schemas.ids import Name


class FailureKind(StrEnum):
    """Failures of executions: any, by the state they ended in, or by what caused them.

    The causes are those of ``DeviceCause`` that speak of the version or of the device.
    """

    ANY = "any"

    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"

    BAD_SIGNATURE = "bad_signature"
    DIGEST_MISMATCH = "digest_mismatch"
    TRANSFER_FAILED = "transfer_failed"
    DISK_FULL = "disk_full"
    LOAD_FAILED = "load_failed"
    GOLDEN_MISMATCH = "golden_mismatch"
    SHADOW_DISAGREED = "shadow_disagreed"
    PROBATION_FAILED = "probation_failed"
    TOO_SLOW = "too_slow"
    OUT_OF_MEMORY = "out_of_memory"
    HUNG = "hung"
    BOOT_LOOP = "boot_loop"
    OPERATOR = "operator"


class FailureGate(Authored):
    """How many executions may fail in one way.

    max_rate: of the devices offered and seen. min_devices: so many must have ended before the rate
    stops a wave that still runs; at the end of the wave it counts however few they were.
    """

    kind: FailureKind
    max_rate: Annotated[float, Field(ge=0, le=1)]
    min_devices: Annotated[int, Field(ge=1, le=MAX_INTEGER)] = 1


class Metric(StrEnum):
    """What telemetry is judged by.

    More is worse, but of ACCURACY and SHADOW_AGREEMENT, of which less is. A rate's
    difference is in points (0.05: five in a hundred), that of a ratio metric a factor (1.2: a
    fifth more).
    """

    ERROR_RATE = "error_rate"
    ACCURACY = "accuracy"
    LOW_CONFIDENCE = "low_confidence"
    CLASS_MIX = "class_mix"
    LATENCY_P50 = "latency_p50"
    LATENCY_P95 = "latency_p95"
    LATENCY_P99 = "latency_p99"
    RSS = "rss"
    ENERGY = "energy"
    SILENCE = "silence"
    SHADOW_AGREEMENT = "shadow_agreement"


RATES = frozenset(
    {
        Metric.ERROR_RATE,
        Metric.ACCURACY,
        Metric.LOW_CONFIDENCE,
        Metric.CLASS_MIX,
        Metric.SILENCE,
        Metric.SHADOW_AGREEMENT,
    }
)
RATIOS = frozenset(Metric) - RATES


class TelemetryGate(Authored):
    """What is tolerated of one metric.

    max_worse: how much worse than the control cohort the new version may be: points of a rate, a
    factor above 1 of a ratio. For SHADOW_AGREEMENT and SILENCE, which have no cohort, the rate
    itself: at least 1 - max_worse of answers agree, at most max_worse of devices are silent.
    required: it must be shown that it is not worse than that; without enough data the wave is
    INCONCLUSIVE. Otherwise only harm that is shown fails the wave.
    """

    metric: Metric
    max_worse: Annotated[float, Field(gt=0, le=1000)]
    required: bool = True

    @model_validator(mode="after")
    def _in_its_unit(self) -> Self:
        if self.metric in RATIOS and self.max_worse <= 1:
            msg = f"max_worse of {self.metric} is a factor above 1, as 1.2 for a fifth more"
            raise ValueError(msg)
        if self.metric in RATES and self.max_worse >= 1:
            msg = f"max_worse of {self.metric} is in points below 1, as 0.05 for five in a hundred"
            raise ValueError(msg)
        return self


STANDARD = (
    TelemetryGate(metric=Metric.ERROR_RATE, max_worse=0.02, required=False),
    TelemetryGate(metric=Metric.ACCURACY, max_worse=0.05, required=False),
    TelemetryGate(metric=Metric.LOW_CONFIDENCE, max_worse=0.10, required=False),
    TelemetryGate(metric=Metric.CLASS_MIX, max_worse=0.20, required=False),
    TelemetryGate(metric=Metric.LATENCY_P95, max_worse=2.0, required=False),
    TelemetryGate(metric=Metric.SILENCE, max_worse=0.20, required=False),
)
"""What is looked at where nothing is said: harm that is shown stops, too few devices do not."""


MEANINGFUL = 0.5
"""Of ``max_worse``: a smaller difference fails no wave however sure it is, a larger passes none."""


class Gates(Authored):
    """What a wave must show before the next one starts.

    max_failure_rate: failed executions among the devices offered and seen. failures: likewise by
    kind. min_success_rate: devices that serve the version at the end, of those offered and seen.
    min_inferences: per device, reported with the new version. max_error_rate: failed
    inferences, the mean over devices, each with one vote. min_accuracy: likewise, over labelled
    inferences, where devices have labels. telemetry: against a control cohort, per device class.
    min_devices: of a class in each of the two cohorts, for a comparison. alpha: chance of stopping
    a wave whose version is no worse, over all metrics, classes and looks together; and of letting
    a version pass that is as much worse as a required gate forbids. baseline_seconds: how far each
    device's own past reaches. soak_seconds: the least time between the last activation and the
    verdict. evidence_seconds: how long after that missing telemetry is waited for
    before the verdict is INCONCLUSIVE.
    """

    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    failures: Annotated[tuple[FailureGate, ...], Field(max_length=8)] = ()
    min_success_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    min_inferences: Annotated[int, Field(ge=1, le=MAX_INTEGER)] = 50
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.02
    min_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    telemetry: Annotated[tuple[TelemetryGate, ...], Field(max_length=len(Metric))] = STANDARD
    min_devices: Annotated[int, Field(ge=2, le=1000)] = 5
    alpha: Annotated[float, Field(gt=0, le=0.2)] = 0.01
    baseline_seconds: Annotated[float, Field(gt=0, le=14 * 86400)] = 3600.0
    soak_seconds: Annotated[float, Field(ge=0, le=30 * 86400)] = 5.0
    evidence_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] = 60.0


class Evidence(Wire):
    """One figure a verdict rests on. ``value`` is None where data is missing.

    n: what it is of (devices, executions or inferences, as the metric has it). ok: None where it
    cannot be said. device_class: of a comparison; value is then the difference to the control
    cohort (points, or a factor), low and high its interval at the level alpha, control what the
    cohort itself changed by meanwhile, devices and controls the sizes. look: which look it was.
    harm_alpha: the level of the end that harm is read from, which is shared by all comparisons.
    binding: False where it only tells. open: more data may show it yet, so a wave that would pass
    without it waits for the last look. note: what else is to be known, as that there was no
    control cohort.
    """

    metric: str
    value: float | None
    threshold: float
    n: int
    ok: bool | None
    device_class: Name | None = None
    low: float | None = None
    high: float | None = None
    control: float | None = None
    devices: int | None = None
    controls: int | None = None
    alpha: float | None = None
    harm_alpha: float | None = None
    look: int | None = None
    binding: bool = True
    open: bool = False
    note: Annotated[str, StringConstraints(max_length=300)] = ""
