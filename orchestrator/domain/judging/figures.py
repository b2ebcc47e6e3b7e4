"""What is known of the devices of a wave and of its control cohort when a verdict is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

NO_BINS = (0,) * 10


class Verdict(StrEnum):
    """What is to be done with a wave that has soaked."""

    WAIT = "wait"
    PASS = "pass"  # noqa: S105 - a verdict, not a secret
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Span:
    """What one device inferred with one model in a span of time, its windows added up.

    n: samples tried. errors: those of them that failed. lost: those of which nothing else is known
    than that they did not fail; they have no latency, class or confidence. labelled, correct:
    samples whose class the device knew, and those of them that the model got right. confidence: in
    ten equal bins. latency: counts by bucket of ``schemas.telemetry``. classes: counts by class.
    rss_mib: the largest of the span; 0 where it is not known. energy_mj, energy_n, method: of
    energy_n samples, all measured by one method; "" where it is not known. compared, agreed:
    samples that the version answered as a shadow, before it served; they belong to the span in
    which it serves. seconds: the length of the windows.
    """

    n: int = 0
    errors: int = 0
    lost: int = 0
    labelled: int = 0
    correct: int = 0
    confidence: tuple[int, ...] = NO_BINS
    latency: Mapping[int, int] = field(default_factory=dict)
    classes: Mapping[int, int] = field(default_factory=dict)
    rss_mib: int = 0
    energy_mj: int = 0
    energy_n: int = 0
    method: str = ""
    compared: int = 0
    agreed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """One device before and after it switched, or the cohort did.

    pre: with the version before; None where it had none, or reported nothing. post: with the new
    version, of a control device with the one that it kept; None likewise. silent: it served the
    version and then was not heard of again, or never told of an inference though it had been at
    work before. earlier: it is of a wave that has passed, and here because its class has too few.
    """

    device: str
    device_class: str
    pre: Span | None
    post: Span | None
    silent: bool = False
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class Cohorts:
    """treated: devices of the wave that serve the version. control: those that do not yet."""

    treated: tuple[DeviceFigures, ...]
    control: tuple[DeviceFigures, ...] = ()
