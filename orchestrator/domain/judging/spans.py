"""Windows of one device added up to what a verdict asks of a span of time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from orchestrator.domain.judging.figures import Span
from schemas.telemetry import MAX_BUCKET, MAX_CLASSES
from schemas.window import SHARES, Window, unpack


@dataclass(slots=True)
class SpanSum:
    """Adds windows; the order does not matter.

    end_ms: when the last of them ended, in milliseconds since 1970.
    """

    windows: int = 0
    end_ms: int = 0
    _sums: Counter[str] = field(default_factory=Counter)
    _latency: Counter[int] = field(default_factory=Counter)
    _classes: Counter[int] = field(default_factory=Counter)
    _confidence: list[int] = field(default_factory=lambda: [0] * SHARES)
    _energy: dict[str, list[int]] = field(default_factory=dict)
    _rss_mib: int = 0

    def add(self, window: Window, start_ms: int) -> None:
        """Count a window that began at ``start_ms``, as the server placed it."""
        self.windows += 1
        self.end_ms = max(self.end_ms, start_ms + window.length_ms)
        sums = self._sums
        for name in _SUMMED:
            sums[name] += getattr(window, name)
        self._rss_mib = max(self._rss_mib, window.rss_mib)
        self._latency.update(unpack(window.latency, MAX_BUCKET))
        self._classes.update(unpack(window.classes, MAX_CLASSES - 1))
        for i, many in enumerate(window.confidence):
            self._confidence[i] += many
        if window.method and window.n:
            energy = self._energy.setdefault(window.method, [0, 0])
            energy[0] += window.energy_mj
            energy[1] += window.n

    def add_shadow(self, window: Window) -> None:
        """Count what the version answered as a shadow, before it served."""
        self._sums["compared"] += window.compared
        self._sums["agreed"] += window.agreed

    def span(self) -> Span | None:
        """What they come to; None where there was nothing."""
        sums = self._sums
        if not self.windows and not sums["compared"]:
            return None
        # Of two methods the one that more samples were measured by: their figures do not compare.
        method = max(self._energy, key=lambda one: (self._energy[one][1], one), default="")
        energy_mj, energy_n = self._energy.get(method, (0, 0))
        return Span(
            n=sums["n"],
            errors=sums["errors"],
            lost=sums["lost"],
            labelled=sums["labelled"],
            correct=sums["correct"],
            confidence=tuple(self._confidence),
            latency=self._latency,
            classes=self._classes,
            rss_mib=self._rss_mib,
            energy_mj=energy_mj,
            energy_n=energy_n,
            method=method,
            compared=sums["compared"],
            agreed=sums["agreed"],
            seconds=sums["length_ms"] / 1000,
        )


_SUMMED = ("n", "errors", "lost", "labelled", "correct", "length_ms")
