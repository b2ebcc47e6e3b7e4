"""What the server counts, in the text format of Prometheus. No label names a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from orchestrator.domain.rollup import Sums
from orchestrator.services.telemetry import Series, TelemetryService
from schemas.telemetry import MAX_BUCKET, bucket_value

LABELS = ("model", "version", "variant", "device_class", "role")

_COUNTERS = {
    "windows": "Windows stored.",
    "n": "Samples that devices tried.",
    "errors": "Samples that failed in the model.",
    "lost": "Samples of processes that were killed, of which nothing else is known.",
    "rejected": "Samples refused before the model saw them.",
    "shed": "Samples dropped unanswered.",
    "labelled": "Samples whose class the device knew.",
    "correct": "Of those, the ones that were answered rightly.",
    "compared": "Samples of a shadow that the active model answered too.",
    "agreed": "Of those, the ones with the same answer.",
    "wire_bytes": "Bytes of telemetry.",
    "raw_bytes": "Bytes that uploading the inputs would have cost.",
}
_NAMES = {"n": "samples", "wire_bytes": "telemetry_bytes"}
_EDGES = tuple(range(0, MAX_BUCKET + 1, 8))
"""Every eighth bucket ends at a power of two of microseconds, so these counts are exact."""

_FIRST, _LAST = 5, 25
"""From 32 µs to 34 s."""


class Exposition:
    """Makes the text of ``/metrics``.

    Args:
        telemetry: what it counted since the start.
    """

    def __init__(self, telemetry: TelemetryService) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(_Fleet(telemetry))
        self._health = _Health()
        self._registry.register(self._health)
        self._requests = Counter(
            "argosy_http_requests",
            "Requests by the template of their route.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "argosy_http_request_seconds",
            "How long requests took.",
            ("method", "route"),
            buckets=(0.005, 0.025, 0.1, 0.5, 2.5, 10),
            registry=self._registry,
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request more. route: its template, without any id."""
        self._requests.labels(method, route, f"{status // 100}xx").inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self, health: Mapping[str, str]) -> bytes:
        """Everything, in the text format."""
        self._health.parts = health
        return generate_latest(self._registry)


class _Health(Collector):
    def __init__(self) -> None:
        self.parts: Mapping[str, str] = {}

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("argosy_up", "Whether a part works.", labels=("part",))
        for part, state in self.parts.items():
            family.add_metric((part,), float(state == "ok"))
        yield family


class _Fleet(Collector):
    """What devices told since this process began; such counters begin anew with it."""

    def __init__(self, telemetry: TelemetryService) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterator[Metric]:
        received = CounterMetricFamily(
            "argosy_windows_received", "Windows by what became of them.", labels=("outcome",)
        )
        for outcome, count in self._telemetry.counters().items():
            received.add_metric((outcome,), count)
        yield received
        series = {_labels(key): sums for key, sums in self._telemetry.series().items()}
        for name, help_ in _COUNTERS.items():
            metric = f"argosy_device_{_NAMES.get(name, name)}"
            family = CounterMetricFamily(metric, help_, labels=LABELS)
            for labels, sums in series.items():
                family.add_metric(labels, getattr(sums, name))
            yield family
        yield _energy(series)
        yield _histogram(series, "latency", "Time of a sample in the model.")
        yield _histogram(series, "queue", "Time that a sample waited before the model.")


def _labels(series: Series) -> tuple[str, ...]:
    return (
        series.model,
        str(series.version),
        series.variant,
        series.device_class,
        series.role,
    )


def _energy(series: Mapping[tuple[str, ...], Sums]) -> CounterMetricFamily:
    help_ = "Energy of inferences, measured or estimated."
    family = CounterMetricFamily("argosy_device_joules", help_, labels=(*LABELS, "method"))
    for labels, sums in series.items():
        family.add_metric((*labels, "measured"), sums.measured_mj / 1000)
        family.add_metric((*labels, "estimated"), sums.estimated_mj / 1000)
    return family


def _histogram(
    series: Mapping[tuple[str, ...], Sums], what: str, help_: str
) -> HistogramMetricFamily:
    """Counts at powers of two; the sum is of the buckets' middles, so it is up to 4.5 % off."""
    family = HistogramMetricFamily(f"argosy_device_{what}_seconds", help_, labels=LABELS)
    for labels, sums in series.items():
        counts: Mapping[int, int] = getattr(sums, what)
        by_edge = [0] * len(_EDGES)
        for bucket, count in counts.items():
            by_edge[-(-bucket // 8)] += count
        below = list(accumulate(by_edge))
        buckets = [(str(2**power / 1e6), below[power]) for power in range(_FIRST, _LAST + 1)]
        seconds = sum(bucket_value(bucket) * count for bucket, count in counts.items()) / 1e6
        family.add_metric(labels, [*buckets, ("+Inf", below[-1])], seconds)
    return family
