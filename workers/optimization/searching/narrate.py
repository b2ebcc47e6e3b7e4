"""What a search says as it goes, and what it says of faulty samples."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from schemas.job import JobCause
from workers.errors import JobFailed
from workers.optimization.point import Point
from workers.optimization.searching.budgets import Figures, Known
from workers.optimization.searching.front import EVERY, Selection

log = logging.getLogger(__name__)


def check_same(hashes: Collection[str], split: str) -> None:
    """Comparisons need the same samples each time.

    Raises:
        JobFailed: they are others.
    """
    if len(set(hashes)) > 1:
        detail = (
            f"the {split} samples are others each time they are read; keep chance out "
            "of splits(), and vary training batches in augment()"
        )
        raise JobFailed(JobCause.BAD_DATA, detail)


def line(known: Known, reference: Figures | None, reason: str | None) -> str:
    """One trial, for people to follow the search by."""
    parts = []
    if known.accuracy is not None:
        parts.append(f"accuracy {known.accuracy:.4f}")
    if known.paired is not None and known.point != Point():
        p = known.paired
        parts.append(f"drop {p.drop:.4f} ({p.low:.4f} to {p.high:.4f}, n={p.n})")
    if known.figures is not None:
        parts.append(f"{known.figures.size / 1e6:.3g} MB, {known.figures.cpu_ms:.3g} ms of CPU")
        if reference is not None and known.point != Point():
            parts.append(f"{reference.cpu_ms / max(1e-6, known.figures.cpu_ms):.1f} times fp32")
    verdict = "good so far" if reason is None else f"not kept: {reason}"
    return f"{known.point.id}: {'; '.join([*parts, verdict])}"


def tell(selection: Selection, known: Mapping[Point, Known]) -> None:
    """Say what is kept, what is not, and which classes find nothing."""
    reference = known[Point()].figures
    for one in selection.kept:
        log.info("kept %s", line(one, reference, None).removesuffix("; good so far"))
    for point, reason in selection.rejected.items():
        log.info("rejected %s: %s", point.id, reason)
    for name, why in selection.unmet.items():
        log.warning(
            "no variant fits %s (%s); allow more of optimize.prune, finetune_epochs, "
            "max_accuracy_drop or max_trials%s",
            "optimize.budget" if name == EVERY else f"the budget of class {name}",
            why,
            "; fp32 stays all the same, as what the others are held against"
            if name == EVERY
            else "",
        )
