"""The record of a running sweep: changed by what Tune's callbacks hear, kept, and told."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from schemas.job import JobCause, Trial
from schemas.jobfile import JobSpec
from workers.errors import JobFailed
from workers.sweep import record as records
from workers.sweep.plan import milestones
from workers.sweep.record import Record
from workers.sweep.reports import BEST, ENDED, EPOCHS, failure_in

log = logging.getLogger(__name__)

OnTrials = Callable[[Sequence[Trial]], None]


class Keeper:
    """Holds the record: writes what matters of a change, and tells of each."""

    def __init__(self, record: Record, spec: JobSpec, storage: str, on_trials: OnTrials) -> None:
        self.record = record
        self.rungs = milestones(spec)
        self._spec = spec
        self._storage = storage
        self._on_trials = on_trials

    def begin(self) -> None:
        """Write the plan before anything runs."""
        records.save(self._storage, self.record)
        self._on_trials(self.record.trials)

    def started(self, number: int) -> None:
        """Tune has started a trial's process."""
        self._change(records.started(self.record, number))

    def reported(self, number: int, report: Mapping[str, Any]) -> None:
        """A trial has reported an epoch, or its end."""
        if report.get(ENDED) == "done":
            epochs, best = int(report[EPOCHS]), float(report[BEST])
            self._change(records.finished(self.record, number, epochs, best))
        elif report.get(ENDED) == "failed":
            failure = failure_in(report)
            log.warning("trial %d failed (%s): %s", number, failure.cause, failure.detail)
            self._change(records.failed(self.record, number, failure.cause, failure.detail))
        else:
            value = float(report.get(self._spec.stop.metric, math.nan))
            if math.isfinite(value) and not self.record.entry(number).ended:
                epoch = int(report["epoch"])
                self._change(records.measured(self.record, number, epoch, value, self.rungs))

    def left(self, number: int) -> None:
        """Tune runs a trial no more; unless it ended before, the scheduler chose so."""
        epochs = self.record.entry(number).trial.epochs
        why = f"others did better by epoch {epochs}"
        self._change(records.stopped(self.record, number, why))

    def broke(self, number: int, detail: str) -> None:
        """A trial's process failed more often than it is started again."""
        self._change(records.failed(self.record, number, JobCause.DRIVER_DIED, detail))

    def close(self) -> None:
        """What has not ended by now needs not run: another trial reached the target."""
        target = records.at_target(self.record, self._spec.stop.target)
        if target is None and self.record.open():
            raise JobFailed(JobCause.DRIVER_DIED, "the search ended before its trials did")
        record = self.record
        for number in record.open():
            record = records.stopped(record, number, f"trial {target} reached the target")
        self._change(record)

    def _change(self, record: Record) -> None:
        if record == self.record:
            return
        told = _without_epochs(record) == _without_epochs(self.record)
        self.record = record
        if not told:
            records.save(self._storage, record)
        self._on_trials(record.trials)


def _without_epochs(record: Record) -> list[Any]:
    """What must outlive the driver; epochs alone are counted again from the checkpoints."""
    return [
        e.model_copy(update={"trial": e.trial.model_copy(update={"epochs": 0})})
        for e in record.entries
    ]
