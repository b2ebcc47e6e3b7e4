"""What classes of devices measured: from single reports to a class's figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from schemas.measure import MeasuredVariant


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one device measured of a variant, in batches of one.

    The figures are those of ``schemas.measure.Benchmark``; millijoules: of its energy.
    devices: how many of the class measured it, this one and those left out.
    """

    variant: str
    device_class: str
    device: str
    p50_ms: float
    p95_ms: float
    load_ms: float
    cpu_ms: float | None = None
    rss_growth_mb: float | None = None
    millijoules: float | None = None
    devices: int = 1
    at: datetime


def by_class(samples: Iterable[Sample]) -> tuple[MeasuredVariant, ...]:
    """Medians over the devices of each class, by variant and class.

    A median stands whatever a minority of devices says.
    """
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.variant, sample.device_class), []).append(sample)
    return tuple(_group(*key, groups[key]) for key in sorted(groups))


def _group(variant: str, device_class: str, samples: Sequence[Sample]) -> MeasuredVariant:
    devices = max(len(samples), *(sample.devices for sample in samples))
    return MeasuredVariant(
        variant=variant,
        device_class=device_class,
        devices=devices,
        p50_ms=median(one.p50_ms for one in samples),
        p95_ms=median(one.p95_ms for one in samples),
        cpu_ms=_median(one.cpu_ms for one in samples),
        load_ms=median(one.load_ms for one in samples),
        rss_growth_mb=_median(one.rss_growth_mb for one in samples),
        millijoules=_median(one.millijoules for one in samples),
        device=samples[0].device if devices == 1 else None,
        at=max(sample.at for sample in samples),
    )


def _median(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return median(there) if there else None
