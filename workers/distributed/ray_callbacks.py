"""What runs in Ray Train's controller, beside the workers.

It tells the driver of epochs and of worker groups, and decides by ``verdict`` which failures
end the training. An exception that it raises ends the run; Ray Train then repeats nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    ReportCallback,
    WorkerGroupCallback,
)

from schemas.job import JobCause
from workers.distributed import durable, polling
from workers.distributed.mailbox import EPOCH, GROUP, Mailbox
from workers.distributed.ray_engine import HungError
from workers.distributed.reservations import shorten
from workers.distributed.verdict import blamed, failure_among, hung
from workers.errors import JobFailed
from workers.memory import kernel_kills
from workers.training.stop import EPOCH_SECONDS

log = logging.getLogger(__name__)

MAX_START_FAILURES = 3
"""Worker groups in a row that failed to start for other reasons than missing resources."""

PAUSE = 0.3
"""Seconds between two looks at the cluster: Ray Train's own loop has none while it waits."""

ASK_SECONDS = 5.0


class Relay(WorkerGroupCallback, ControllerCallback, ReportCallback):
    """Between the controller of one training and its driver.

    Args:
        mailbox: the name of the job's.
        trial: of a sweep, from 1; else 0.
        hang_seconds: of the workers' watchdogs.
    """

    def __init__(self, mailbox: str, trial: int, hang_seconds: float) -> None:
        self._name = mailbox
        self._trial = trial
        self._hang_seconds = hang_seconds
        self._mailbox: Mailbox | None = None
        self._kills = 0
        self._start_failures = 0
        self._workers = 0
        self._told = ""

    # -- worker groups -----------------------------------------------------------

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """A group's resources are about to be asked for."""
        self._workers = int(worker_group_context.num_workers)
        self._tell("placing", worker_group_context.resources_per_worker)

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        """The processes of a group are there: they hold what they asked for."""
        self._kills = kernel_kills()
        self._workers = len(workers)
        self._tell("up", workers[0].resources if workers else {})
        return {}

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        """The loop runs on all workers."""
        del worker_group
        self._start_failures = 0
        self._tell("training", {})

    def after_worker_group_shutdown(self, worker_group_context: Any) -> None:
        """A group is gone."""
        del worker_group_context
        self._tell("down", {})

    def after_worker_group_abort(self, worker_group_context: Any) -> None:
        """A group was ended at once."""
        self.after_worker_group_shutdown(worker_group_context)

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """End the run at a failure that a retry would only repeat."""
        errors: dict[int, Exception] = worker_group_status.errors
        if not errors:
            return
        told = [error for error in errors.values() if isinstance(error, HungError)]
        if told:
            raise self._explained(told[0])
        failure = failure_among(errors, kernel_killed=kernel_kills() > self._kills)
        if failure is not None:
            raise failure
        first = next(iter(errors.values()))
        lines = str(getattr(first, "health_check_failure", first)).strip().splitlines()
        said = " ".join(line.strip() for line in lines[:8])[:500]
        ranks = ", ".join(str(rank) for rank in sorted(errors))
        log.warning("rank %s is lost, the workers start again: %s", ranks, said)
        self._tell("lost", {}, detail=f"rank {ranks} is lost; the workers start again")

    def _explained(self, first: HungError) -> JobFailed:
        """The hang that the others follow from; their watchdogs bark within a twentieth."""
        until = time.monotonic() + self._hang_seconds / 10 + 2
        while True:
            hangs = [h for h in self._box().hangs(ASK_SECONDS) if h["trial"] == self._trial]
            guilty = blamed(hangs)
            known = {int(h["rank"]) for h in hangs}
            certain = guilty is not None and guilty["user_code"]
            if certain or len(known) >= self._workers or time.monotonic() > until:
                break
            time.sleep(PAUSE)
        mine: Mapping[str, Any] = {"rank": first.rank, "detail": first.detail}
        return hung(guilty or mine, self._workers)

    # -- the controller ----------------------------------------------------------

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Arrive in the controller, before it begins: it reserves before any callback."""
        self.__dict__.update(state)
        shorten()
        durable.install()
        polling.install()

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Bound failing starts, and slow down Ray Train's wait for resources."""
        name = type(current_state).__name__
        error = getattr(current_state, "training_failed_error", None)
        if name == "ReschedulingState" and type(previous_state).__name__ != name:
            cause = getattr(error, "controller_failure", error)
            if not isinstance(cause, WorkerGroupStartupTimeoutError):
                self._start_failures += 1
            if self._start_failures > MAX_START_FAILURES:
                detail = f"the workers did not start: {_last_line(cause)}"
                raise JobFailed(JobCause.INTERNAL, detail)
        if type(previous_state) is type(current_state) and name in _WAITING:
            self._tell("deciding", {})
            time.sleep(PAUSE)

    # -- epochs ------------------------------------------------------------------

    def after_report(self, training_report: Any, metrics: list[dict[str, Any]]) -> None:
        """All workers have reported an epoch; their figures are the same, being reduced."""
        del training_report
        polling.heard(float(metrics[0].get(EPOCH_SECONDS, 0.0)))
        values = {name: float(value) for name, value in metrics[0].items() if name != "epoch"}
        payload = {
            "epoch": int(metrics[0]["epoch"]),
            "trial": self._trial,
            "at": datetime.now(UTC).isoformat(),
            "values": values,
        }
        self._box().send(EPOCH, payload)

    def _tell(self, event: str, each: Mapping[str, float], detail: str = "") -> None:
        if event == self._told == "deciding":
            return
        self._told = event
        payload = {
            "event": event,
            "trial": self._trial,
            "workers": self._workers,
            "cpus": float(each.get("CPU", 0.0)) * self._workers,
            "gpus": float(each.get("GPU", 0.0)) * self._workers,
            "detail": detail,
        }
        self._box().send(GROUP, payload)

    def _box(self) -> Mailbox:
        if self._mailbox is None:
            self._mailbox = Mailbox(self._name)
        return self._mailbox


_WAITING = frozenset({"InitializingState", "RestartingState", "ReschedulingState"})


def _last_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1][:1000] if lines else "no reason was given"
