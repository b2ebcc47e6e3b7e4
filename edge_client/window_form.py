"""Counts as they are kept and sent: ``schemas.window`` of a tally."""

from __future__ import annotations

from collections import Counter

from edge_client.live_layout import Totals
from edge_client.tally import Subject, Tally
from schemas.base import MAX_INTEGER
from schemas.window import About, Method, Window, pack

MAX_CLASSES_SENT = 4000
"""Classes of one window: of more, the most frequent; all of them would not fit an envelope."""

MAX_LENGTH_SECONDS = 31 * 86_400.0


def about_of(boot: bytes, subject: Subject) -> About:
    """What a window is of."""
    slot = subject.slot
    return About(
        boot, slot.model, slot.version, slot.variant, subject.role, subject.provider,
        subject.wanted, dict(subject.nodes),
    )  # fmt: skip


def window_of(
    tally: Tally, *, method: Method, rss: float | None, heat: int | None, sent: int
) -> Window:
    """A tally's window, neither numbered nor dated yet.

    Args:
        tally: a span of time.
        method: where its energy comes from.
        rss: MiB of the process.
        heat: degrees of the processor.
        sent: samples set aside before that have been sent.
    """
    energy = round(tally.joules * 1000)
    return Window(
        about=0,
        seq=0,
        start_ms=0,
        synced=False,
        length_ms=_milliseconds(tally.length),
        n=tally.n,
        errors=tally.errors,
        runs=tally.runs,
        latency=pack(tally.latency),
        confidence=_cut(tally.confidence),
        entropy=_cut(tally.entropy),
        classes=pack(dict(Counter(tally.classes).most_common(MAX_CLASSES_SENT))),
        features=tally.features.taken(),
        raw_bytes=min(tally.raw_bytes, MAX_INTEGER),
        cpu_ms=round(tally.cpu * 1000),
        rss_mib=0 if rss is None else round(rss),
        energy_mj=energy,
        method=method if energy else "",
        queue=pack(tally.queue),
        rejected=tally.rejected,
        shed=tally.shed,
        cold=tally.cold,
        labelled=tally.labelled,
        correct=tally.correct,
        compared=tally.compared,
        agreed=tally.agreed,
        lost=tally.lost,
        celsius=heat,
        sampled=tally.sampled,
        sent=sent,
    )


def lost_window(gone: Totals, length: float) -> Window:
    """What a killed process served and did not write. length: seconds, as far as it is known."""
    errors = min(gone.errors, gone.n)
    return Window(
        about=0,
        seq=0,
        start_ms=0,
        synced=False,
        length_ms=_milliseconds(length),
        n=gone.n,
        errors=errors,
        rejected=gone.rejected,
        shed=gone.shed,
        lost=gone.n - errors,
    )


def _milliseconds(seconds: float) -> int:
    return round(1000 * min(max(0.0, seconds), MAX_LENGTH_SECONDS))


def _cut(counts: list[int]) -> list[int]:
    """Without the zeros at the end."""
    last = max((i for i, count in enumerate(counts) if count), default=-1)
    return counts[: last + 1]
