"""One trial of a sweep, in a process that Ray Tune starts: the driver of a Ray Train run.

The pattern that Ray documents for both together: a function that Tune calls builds a
trainer of its own, whose epochs a callback hands to Tune. It reserves none of the cores
that its workers need.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas.job import JobCause
from schemas.jobfile import JobSpec
from workers.blame import blame
from workers.errors import JobFailed
from workers.sweep_plan import Parameters, apply

if TYPE_CHECKING:
    from workers.train import Fitted

Fit = Callable[..., "Fitted"]
"""As ``workers.train.fit``."""

CONFIG = "trial"
"""The key under which Tune hands a trial its number."""

ENDED = "argosy_ended"
"""In a trial's last report: ``done`` or ``failed``, with the keys below."""

EPOCHS, BEST, CAUSE, DETAIL = "argosy_epochs", "argosy_best", "argosy_cause", "argosy_detail"

TRANSIENT = frozenset({JobCause.INTERNAL, JobCause.DRIVER_DIED})
"""Causes that the same parameters may not meet again: Tune starts the trial once more."""

FORWARDER = "workers.sweep_callbacks.TuneForwarder"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the trials of a sweep share. spec: as JSON. parameters, rungs: by trial.

    rungs: what an earlier attempt measured at ASHA's milestones.
    """

    spec: str
    storage: str
    mailbox: str
    metric: str
    parameters: Mapping[int, Parameters]
    rungs: Mapping[int, Mapping[int, float]] = field(default_factory=dict)


def storage_of(storage: str, number: int) -> str:
    """Where a trial keeps its checkpoints: below the job's folder or URL."""
    return f"{storage.rstrip('/')}/trial-{number}"


def trainable(shared: Assignment, fit: Fit | None = None) -> Callable[[dict[str, Any]], None]:
    """The function that Tune runs as a trial, given ``{"trial": number}``."""

    def trial(config: dict[str, Any]) -> None:
        run_trial(shared, int(config[CONFIG]), fit)

    return trial


def run_trial(shared: Assignment, number: int, fit: Fit | None) -> None:
    """Train, and say how it ended. A failure of the job's own making is said, not raised."""
    from ray import tune  # noqa: PLC0415 - seconds to import, and tests need none of it

    # ASHA is new at each attempt: it hears again what it heard of this trial.
    for epoch, value in sorted(shared.rungs.get(number, {}).items()):
        tune.report({"epoch": epoch, shared.metric: value})
    os.environ["RAY_TRAIN_CALLBACKS"] = FORWARDER
    try:
        fitted = _fit(shared, number, fit)
    except Exception as error:
        failure = blame(error)
        if failure.cause in TRANSIENT:
            raise
        tune.report({ENDED: "failed", CAUSE: str(failure.cause), DETAIL: failure.detail})
        return
    tune.report({ENDED: "done", EPOCHS: fitted.epochs, BEST: fitted.best})


def _fit(shared: Assignment, number: int, fit: Fit | None) -> Fitted:
    if fit is None:
        from workers.train import fit as train_fit  # noqa: PLC0415 - see run_trial

        fit = train_fit
    spec = apply(JobSpec.model_validate_json(shared.spec), shared.parameters[number])
    storage = storage_of(shared.storage, number)
    return fit(spec, storage, shared.mailbox, trial=number)


def failure_in(report: Mapping[str, Any]) -> JobFailed:
    """The failure that a trial's last report tells of."""
    return JobFailed(JobCause(report[CAUSE]), str(report[DETAIL]))
