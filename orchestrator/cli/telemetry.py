"""``argosy telemetry``: what devices tell of a version."""

from __future__ import annotations

import rich_click as click

from schemas.commands import Entry, LazyGroup

_HERE = "orchestrator.cli"
_ENTRIES = {
    "summary": Entry(f"{_HERE}.telemetry_figures:summary", "Figures of a version, added up."),
    "series": Entry(f"{_HERE}.telemetry_figures:series", "The same over time."),
    "features": Entry(
        f"{_HERE}.telemetry_features:features", "What inputs look like, beside the training data."
    ),
    "samples": Entry(
        f"{_HERE}.telemetry_samples:samples", "Inputs that devices gave away, to see or to save."
    ),
}


@click.group(cls=LazyGroup, entries=_ENTRIES)
def telemetry() -> None:
    """See what devices tell of a model."""
