"""Windows of one device added up to what a verdict asks of a span of time."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.domain.judging.figures import Span
from orchestrator.domain.rollup import spread
from schemas.telemetry import MAX_BUCKET, MAX_CLASSES
from schemas.window import SHARES, Window


@dataclass(slots=True)
class SpanSum:
    """Adds windows; the order does not matter.

    end_ms: when the last of them ended, in milliseconds since 1970.
    """

    windows: int = 0
    end_ms: int = 0
    n: int = 0
    errors: int = 0
    lost: int = 0
    labelled: int = 0
    correct: int = 0
    compared: int = 0
    agreed: int = 0
    length_ms: int = 0
    rss_mib: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    classes: dict[int, int] = field(default_factory=dict)
    confidence: list[int] = field(default_factory=lambda: [0] * SHARES)
    energy: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, window: Window, start_ms: int) -> None:
        """Count a window that began at ``start_ms``, as the server placed it."""
        self.windows += 1
        self.end_ms = max(self.end_ms, start_ms + window.length_ms)
        self.n += window.n
        self.errors += window.errors
        self.lost += window.lost
        self.labelled += window.labelled
        self.correct += window.correct
        self.length_ms += window.length_ms
        self.rss_mib = max(self.rss_mib, window.rss_mib)
        spread(self.latency, window.latency, MAX_BUCKET)
        spread(self.classes, window.classes, MAX_CLASSES - 1)
        for i, many in enumerate(window.confidence):
            self.confidence[i] += many
        if window.method and window.n:
            spent, of = self.energy.get(window.method, (0, 0))
            self.energy[window.method] = (spent + window.energy_mj, of + window.n)

    def add_shadow(self, window: Window) -> None:
        """Count what the version answered as a shadow, before it served."""
        self.compared += window.compared
        self.agreed += window.agreed

    def span(self) -> Span | None:
        """What they come to; None where there was nothing."""
        if not self.windows and not self.compared:
            return None
        # Of two methods the one that more samples were measured by: their figures do not compare.
        method = max(self.energy, key=lambda one: (self.energy[one][1], one), default="")
        energy_mj, energy_n = self.energy.get(method, (0, 0))
        return Span(
            n=self.n,
            errors=self.errors,
            lost=self.lost,
            labelled=self.labelled,
            correct=self.correct,
            confidence=tuple(self.confidence),
            latency=self.latency,
            classes=self.classes,
            rss_mib=self.rss_mib,
            energy_mj=energy_mj,
            energy_n=energy_n,
            method=method,
            compared=self.compared,
            agreed=self.agreed,
            seconds=self.length_ms / 1000,
        )
