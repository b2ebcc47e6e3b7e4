"""What a trial reports to Tune besides its epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.job import JobCause
from workers.errors import JobFailed

CONFIG = "trial"
"""The key under which Tune hands a trial its number."""

GROUP = "argosy_group"
"""The placement group of the trial's workers, as soon as it is there."""

ENDED, EPOCHS, BEST, CAUSE, DETAIL = (
    "argosy_ended",
    "argosy_epochs",
    "argosy_best",
    "argosy_cause",
    "argosy_detail",
)


def done_report(epochs: int, best: float) -> dict[str, Any]:
    """The last report of a trial that ended by its own stop rules."""
    return {"done": True, ENDED: "done", EPOCHS: epochs, BEST: best}


def failed_report(failure: JobFailed) -> dict[str, Any]:
    """The last report of a trial whose parameters failed."""
    cause, detail = str(failure.cause), failure.detail
    return {"done": True, ENDED: "failed", CAUSE: cause, DETAIL: detail}


def failure_in(report: Mapping[str, Any]) -> JobFailed:
    """The failure that a trial's last report tells of."""
    return JobFailed(JobCause(report[CAUSE]), str(report[DETAIL]))
