"""What classes of devices measured: from single reports to a class's figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from schemas.measure import Benchmark, MeasuredVariant


@dataclass(frozen=True, slots=True)
class Sample:
    """What one device measured of a variant, in batches of one."""

    variant: str
    device_class: str
    device: str
    benchmark: Benchmark
    at: datetime


def by_class(samples: Iterable[Sample]) -> tuple[MeasuredVariant, ...]:
    """Medians over the devices of each class, by variant and class.

    A median stands whatever a minority of devices says.
    """
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        if sample.benchmark.batch == 1:
            groups.setdefault((sample.variant, sample.device_class), []).append(sample)
    return tuple(_group(*key, groups[key]) for key in sorted(groups))


def _group(variant: str, device_class: str, samples: Sequence[Sample]) -> MeasuredVariant:
    found = [sample.benchmark for sample in samples]
    return MeasuredVariant(
        variant=variant,
        device_class=device_class,
        devices=len(samples),
        p50_ms=median(one.p50_ms for one in found),
        p95_ms=median(one.p95_ms for one in found),
        cpu_ms=_median(one.cpu_ms for one in found),
        load_ms=median(one.load_ms for one in found),
        rss_growth_mb=_median(one.rss_growth_mb for one in found),
        millijoules=_median(one.energy.millijoules if one.energy else None for one in found),
        device=samples[0].device if len(samples) == 1 else None,
        at=max(sample.at for sample in samples),
    )


def _median(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return median(there) if there else None
