"""What a simulated fleet is like: kinds of devices, how versions behave on them, what goes wrong.

A profile is YAML that a person writes, so unknown keys are refused. ``docs/simulator.md`` tells
it to users.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from schemas.base import Authored, VersionNo
from schemas.device import Isa, Tag
from schemas.ids import Name

Share = Annotated[float, Field(ge=0, le=1)]
Points = Annotated[float, Field(ge=-1, le=1)]
Factor = Annotated[float, Field(gt=0, le=1000)]
Seconds = Annotated[float, Field(gt=0, le=86400)]

MAX_LABELS = 100


class Board(Authored):
    """What the devices of a class say that they are; it decides which variant fits them."""

    arch: Annotated[str, Field(max_length=32)] = "x86_64"
    isa: Annotated[tuple[Isa, ...], Field(max_length=64)] = ("avx2",)
    cpus: Annotated[int, Field(ge=1, le=4096)] = 4
    ram_mb: Annotated[int, Field(ge=1, le=2**24)] = 4096
    providers: Annotated[tuple[str, ...], Field(max_length=32)] = ("CPUExecutionProvider",)
    ort: Annotated[str, Field(max_length=32)] = "1.23.0"


class Drift(Authored):
    """Slow waves in accuracy and latency that no version causes.

    own: amplitude of each device's wave, with a phase of its own. common: of the wave that all
    devices of the class share, as daylight is; a verdict that forgets its control cohort takes it
    for the version's. Points of accuracy; latency moves by the same share of itself.
    period_seconds: of both.
    """

    own: Share = 0.0
    common: Share = 0.0
    period_seconds: Annotated[float, Field(ge=10, le=30 * 86400)] = 3600.0


class Traffic(Authored):
    """What a device infers with a version that is as it should be.

    rate: inferences a second. labels: how often each class is answered, as weights. accuracy: of
    the labelled ones. labelled: share of inferences whose class the device knows. latency_ms: the
    median; latency_spread: deviation of its logarithm. low_confidence: share of answers below one
    half. energy_mj: of an inference. spread: deviation between devices, in points of accuracy;
    of latency as a share.
    """

    rate: Annotated[float, Field(gt=0, le=10_000)] = 2.0
    labels: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(max_length=MAX_LABELS)] = (
        4.0,
        3.0,
        2.0,
        1.0,
    )
    accuracy: Share = 0.95
    labelled: Share = 1.0
    error_rate: Share = 0.001
    latency_ms: Annotated[float, Field(gt=0, le=600_000)] = 8.0
    latency_spread: Annotated[float, Field(ge=0, le=3)] = 0.25
    low_confidence: Share = 0.08
    rss_mib: Annotated[int, Field(ge=0, le=2**20)] = 120
    energy_mj: Annotated[float, Field(ge=0, le=1e6)] = 4.0
    spread: Share = 0.01
    drift: Drift = Drift()

    @model_validator(mode="after")
    def _has_labels(self) -> Self:
        if not sum(self.labels) > 0:
            msg = "labels: at least one class has a weight above 0"
            raise ValueError(msg)
        return self


class Kind(Authored):
    """Devices of one class. share: their weight among all classes. tags: of their join token."""

    name: Name
    share: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    tags: Annotated[tuple[Tag, ...], Field(max_length=16)] = ()
    board: Board = Board()
    traffic: Traffic = Traffic()


class Effect(Authored):
    """How a version differs from one that is as it should be, on some devices.

    model, version, device_class: where it holds; what is left out holds for all. share: of these
    devices. accuracy, error_rate, low_confidence: added points. class_shift: share of answers that
    become the first class. latency, rss, energy: factors. crash: share of updates whose new model
    does not survive probation (ROLLED_BACK). fail: share of updates that end before the swap
    (FAILED, may be tried again). silent: share of devices that send no telemetry once it is
    active. dead: share of devices that are gone for good once they said that it serves.
    """

    model: Name | None = None
    version: VersionNo | None = None
    device_class: Name | None = None
    share: Share = 1.0
    accuracy: Points = 0.0
    error_rate: Points = 0.0
    low_confidence: Points = 0.0
    class_shift: Share = 0.0
    latency: Factor = 1.0
    rss: Factor = 1.0
    energy: Factor = 1.0
    crash: Share = 0.0
    fail: Share = 0.0
    silent: Share = 0.0
    dead: Share = 0.0


class Faulty(Authored):
    """share: of the devices, of device_class where one is named."""

    share: Share
    device_class: Name | None = None


class Offline(Faulty):
    """Never connects after it enrolled."""

    kind: Literal["offline"]


class Slow(Faulty):
    """Does every step of an update so many times slower."""

    kind: Literal["slow"]
    factor: Annotated[float, Field(ge=1, le=1000)] = 10.0


class Flapping(Faulty):
    """Loses its connection every so often, for a while."""

    kind: Literal["flapping"]
    every_seconds: Seconds = 30.0
    down_seconds: Seconds = 5.0


class WrongClock(Faulty):
    """Never learns the server's time, and has a wrong one of its own."""

    kind: Literal["wrong_clock"]
    hours: Annotated[float, Field(ge=-1e6, le=1e6)] = -30.0


class LostReports(Faulty):
    """Loses a share of its reports before they are sent."""

    kind: Literal["lost_reports"]
    rate: Share = 0.2


class DuplicatedReports(Faulty):
    """Sends a share of its reports twice."""

    kind: Literal["duplicated_reports"]
    rate: Share = 0.5


Fault: TypeAlias = Annotated[
    Offline | Slow | Flapping | WrongClock | LostReports | DuplicatedReports,
    Field(discriminator="kind"),
]


class Work(Authored):
    """How quickly devices update.

    bytes_per_second: of a download that is not really made. step_seconds: to verify, to stage and
    to swap, each with chance from half to one and a half of it. defer: share of devices that put an
    update off where they may, for defer_seconds.
    """

    bytes_per_second: Annotated[float, Field(gt=0, le=1e12)] = 2e6
    step_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.2
    defer: Share = 0.0
    defer_seconds: Seconds = 30.0


class Profile(Authored):
    """A fleet. pull: share of updates that really fetch the model, chunk by chunk.

    window_seconds: between windows of telemetry in peace; eager_seconds: after a model was loaded,
    for eager_for_seconds.
    """

    classes: Annotated[tuple[Kind, ...], Field(min_length=1, max_length=50)] = (
        Kind(name="default"),
    )
    versions: Annotated[tuple[Effect, ...], Field(max_length=200)] = ()
    faults: Annotated[tuple[Fault, ...], Field(max_length=100)] = ()
    work: Work = Work()
    pull: Share = 0.01
    window_seconds: Seconds = 60.0
    eager_seconds: Seconds = 5.0
    eager_for_seconds: Annotated[float, Field(ge=0, le=86400)] = 900.0

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        names = [one.name for one in self.classes]
        if len(set(names)) < len(names):
            msg = "classes: each has a name of its own"
            raise ValueError(msg)
        named = [one.device_class for one in (*self.versions, *self.faults)]
        unknown = next((name for name in named if name is not None and name not in names), None)
        if unknown is not None:
            msg = f"there is no class {unknown!r}; there are: {', '.join(names)}"
            raise ValueError(msg)
        return self
