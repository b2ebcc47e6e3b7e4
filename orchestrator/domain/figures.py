"""What sums of windows say: quantiles, rates, energy, and how far inputs are from the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.domain.rollup import Sums
from schemas.base import MAX_INTEGER
from schemas.dataset import Feature
from schemas.telemetry import FeatureView, Quantiles, quantile

MAX_CLASSES_SHOWN = 100

_PLAIN = (
    "windows",
    "n",
    "errors",
    "labelled",
    "correct",
    "lost",
    "rejected",
    "shed",
    "cold",
    "dropped",
    "raw_bytes",
    "compared",
    "sampled",
    "sent",
    "unsynced",
    "moved",
)


def figures(sums: Sums) -> dict[str, Any]:
    """The fields of ``TelemetrySummary`` that follow from sums."""
    came = sums.n + sums.rejected + sums.shed
    return {
        **{name: min(getattr(sums, name), MAX_INTEGER) for name in _PLAIN},
        **_quantiles(sums.latency),
        "accuracy": _share(sums.correct, sums.labelled),
        # Of lost samples it is known whether they failed: a killed process leaves both counts.
        "error_rate": _share(sums.errors, sums.n),
        "rejected_rate": _share(sums.rejected, came),
        "shed_rate": _share(sums.shed, came),
        "queue": Quantiles(**_quantiles(sums.queue)),
        "mean_batch": _share(sums.n, sums.runs),
        "seconds": sums.length_ms / 1000,
        "per_second": _share(1000 * sums.n, sums.length_ms),
        # Millijoules of one are joules of a thousand.
        "joules_per_1000_measured": _share(sums.measured_mj, sums.measured_n),
        "joules_per_1000_estimated": _share(sums.estimated_mj, sums.estimated_n),
        "telemetry_bytes": min(sums.wire_bytes, MAX_INTEGER),
        "bytes_saved": _within(sums.raw_bytes - sums.wire_bytes),
        "agreement": _share(sums.agreed, sums.compared),
        "providers": _counts(sums.providers),
        "fallbacks": _counts(sums.wanted),
        "nodes": _counts(sums.nodes),
        "classes": _most_frequent(sums.classes),
        "confidence": tuple(min(count, MAX_INTEGER) for count in sums.confidence),
        "entropy": tuple(min(count, MAX_INTEGER) for count in sums.entropy),
        "rss_mib": min(sums.rss_mib, MAX_INTEGER) or None,
        "celsius": sums.celsius,
        "cpu_seconds": sums.cpu_ms / 1000,
    }


def feature(sums: Sums, index: int, baseline: Feature) -> dict[str, Any]:
    """The fields of ``FeatureView`` for the baseline's feature of that index.

    A device counts as [under, over, nan, bin, bin, …], with zeros at the end left out.
    """
    row = list(sums.features[index]) if index < len(sums.features) else []
    bins = len(baseline.counts)
    row = [min(count, MAX_INTEGER) for count in row[: 3 + bins]]
    row += [0] * (3 + bins - len(row))
    expected = (baseline.under, baseline.over, baseline.nan, *baseline.counts)
    index_of, by_chance = psi(expected, row)
    return {
        "name": baseline.name,
        "edges": baseline.edges,
        "expected": baseline.counts,
        "expected_outside": expected[:3],
        "counts": tuple(row[3:]),
        "under": row[0],
        "over": row[1],
        "nan": row[2],
        "psi": index_of,
        "chance": by_chance,
    }


def psi(expected: Sequence[int], seen: Sequence[int]) -> tuple[float | None, float | None]:
    """The population stability index of two histograms, and its mean if they are of one kind.

    Σ (p - q) ln(p / q) (Siddiqi, Credit Risk Scorecards, 2006), each bin with half a count more
    (Jeffreys), so that an empty one gives no infinity. Without a change its mean is
    (bins - 1)(1/n + 1/m) (Yurdakul, Western Michigan University, 2018); bins that are empty on
    both sides are none.

    Returns:
        None for both where one side has no count.
    """
    pairs = [(a, b) for a, b in zip(expected, seen, strict=True) if a or b]
    n, m = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    if not n or not m:
        return None, None
    more = len(pairs) / 2
    shares = [((a + 0.5) / (n + more), (b + 0.5) / (m + more)) for a, b in pairs]
    return (
        sum((q - p) * math.log(q / p) for p, q in shares),
        (len(pairs) - 1) * (1 / n + 1 / m),
    )


def feature_views(sums: Sums, baseline: Sequence[Feature], **names: Any) -> list[FeatureView]:
    """The features of a baseline beside what devices saw. names: model, version, variant."""
    return [FeatureView(**names, **feature(sums, index, one)) for index, one in enumerate(baseline)]


def _quantiles(histogram: Mapping[int, int]) -> dict[str, float | None]:
    return {
        f"p{percent}_ms": None
        if (found := quantile(histogram, percent / 100)) is None
        else found / 1000
        for percent in (50, 90, 95, 99)
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole > 0 else None


def _within(value: int) -> int:
    return max(-MAX_INTEGER, min(value, MAX_INTEGER))


def _counts(of: Mapping[str, int]) -> dict[str, int]:
    return {name: min(count, MAX_INTEGER) for name, count in sorted(of.items())}


def _most_frequent(classes: Mapping[int, int]) -> dict[int, int]:
    found = sorted(classes.items(), key=lambda item: (-item[1], item[0]))[:MAX_CLASSES_SHOWN]
    return {label: min(count, MAX_INTEGER) for label, count in sorted(found)}
