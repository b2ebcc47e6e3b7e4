"""Experiments: devices split between two versions of a model, and how these differ."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import MAX_INTEGER, Authored, Line, UtcTime, VersionNo, Wire
from schemas.device import Tag
from schemas.gates import RATIOS, Metric
from schemas.ids import ExperimentId, Name, RolloutId
from schemas.rollout import RolloutState
from schemas.selector import SelectorText

ArmName = Literal["a", "b"]

COMPARABLE = frozenset(Metric) - {Metric.SILENCE, Metric.SHADOW_AGREEMENT}
"""What an experiment may compare; the others are no figures of a version that serves."""

COMPARED = (
    Metric.ERROR_RATE,
    Metric.ACCURACY,
    Metric.LOW_CONFIDENCE,
    Metric.LATENCY_P50,
    Metric.LATENCY_P95,
)
"""What is compared where nothing is said."""


class ExperimentState(StrEnum):
    """Where an experiment stands.

    STARTING: its two rollouts are about to start. STOPPING: they are about to end, and the
    winner's rollout to start, if one was named.
    """

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"


class ExperimentSpec(Authored):
    """An experiment as an operator asks for it.

    a, b: versions of the model. device_class/tags/where/fleet/exclude: the target, as of a rollout.
    percent: of the target that takes part. share: of those, who get b. metrics: to be compared.
    min_devices: of a class in each arm, for a comparison. min_inferences: of a device, to be
    counted. alpha: of the two-sided intervals: 0.05 makes them hold in 95 of 100 comparisons.
    baseline_seconds: how far each device's own past reaches, against which it is compared.
    """

    model: Name
    a: VersionNo
    b: VersionNo
    device_class: Name | None = None
    tags: Annotated[tuple[Tag, ...], Field(max_length=16)] = ()
    where: SelectorText | None = None
    fleet: Name | None = None
    exclude: SelectorText | None = None
    percent: Annotated[float, Field(gt=0, le=100)] = 100.0
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1, max_length=len(Metric))] = COMPARED
    min_devices: Annotated[int, Field(ge=2, le=1000)] = 5
    min_inferences: Annotated[int, Field(ge=1, le=MAX_INTEGER)] = 50
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    baseline_seconds: Annotated[float, Field(gt=0, le=86400)] = 3600.0

    @model_validator(mode="after")
    def _two(self) -> Self:
        if self.a == self.b:
            msg = "a and b are the same version: there is nothing to compare"
            raise ValueError(msg)
        odd = set(self.metrics) - COMPARABLE
        if odd:
            msg = f"metrics: {', '.join(sorted(odd))} cannot be compared between two versions"
            raise ValueError(msg)
        if len(set(self.metrics)) != len(self.metrics):
            msg = "metrics: each is named once"
            raise ValueError(msg)
        return self


class Difference(Wire):
    """How b differs from a, by one metric.

    device_class: None is over all classes, each weighted by its devices. value: b less a in points,
    of a ratio b over a; low, high: its two-sided interval; None where it cannot be said. a, b: what
    each arm did, the mean over devices (of a ratio the geometric one): a share, milliseconds, MiB,
    or millijoules of an inference; of class_mix how far it moved from before. devices_a, devices_b:
    those that count. better: the arm that is, where the interval leaves no doubt. words: the
    same for people.
    """

    metric: Metric
    device_class: Name | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    a: float | None = None
    b: float | None = None
    devices_a: int = 0
    devices_b: int = 0
    better: ArmName | None = None
    words: str = ""

    @property
    def is_ratio(self) -> bool:
        """Whether ``value`` is a factor."""
        return self.metric in RATIOS


class ArmView(Wire):
    """One side. devices: that were assigned to it; serving: of them, those that serve it."""

    arm: ArmName
    version: VersionNo
    rollout: RolloutId
    state: RolloutState
    devices: int
    serving: int


class ExperimentView(Wire):
    """An experiment, as the API shows it.

    kept: the arm that all got in the end, by the rollout ``kept_rollout``. reason: why it was
    stopped, or could not start. differences: as of now, of a stopped one as of its end; listings
    have neither these nor the arms. notes: what they rest on.
    """

    id: ExperimentId
    spec: ExperimentSpec
    state: ExperimentState
    reason: str | None = None
    kept: ArmName | None = None
    kept_rollout: RolloutId | None = None
    arms: tuple[ArmView, ...] = ()
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    requested_by: str
    created_at: UtcTime
    ended_at: UtcTime | None = None


class StopRequest(Authored):
    """How an experiment is stopped.

    keep: the arm whose version the devices of the other one get; None leaves each what it has.
    """

    keep: ArmName | None = None
    reason: Annotated[Line, StringConstraints(max_length=500)] = ""
