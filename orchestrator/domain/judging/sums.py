"""A span of a device from what telemetry keeps of it."""

from __future__ import annotations

from orchestrator.domain.judging.figures import NO_BINS, Span
from orchestrator.domain.rollup import Sums

MEASURED, ESTIMATED = "measured", "estimated"


def span_of(sums: Sums | None) -> Span | None:
    """The span that windows or hours add up to; None where there was nothing.

    Energy is of the method by which more samples were measured.
    """
    if sums is None or not sums.windows:
        return None
    measured = sums.measured_n >= sums.estimated_n
    return Span(
        n=sums.n,
        errors=sums.errors,
        lost=sums.lost,
        labelled=sums.labelled,
        correct=sums.correct,
        confidence=(*sums.confidence, *NO_BINS)[: len(NO_BINS)],
        latency=sums.latency,
        classes=sums.classes,
        rss_mib=sums.rss_mib,
        energy_mj=sums.measured_mj if measured else sums.estimated_mj,
        energy_n=sums.measured_n if measured else sums.estimated_n,
        method=MEASURED if measured else ESTIMATED,
        compared=sums.compared,
        agreed=sums.agreed,
        seconds=sums.length_ms / 1000,
    )
