"""What runs in Ray Train's controller, beside the workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.train import UserCallback

from workers.blame import job_failure
from workers.spool import Spool, point_of


class SpoolCallback(UserCallback):
    """Passes each epoch on, and ends the run at an error that a retry would repeat."""

    def __init__(self, spool: str) -> None:
        self._spool = spool

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        """All workers have reported an epoch; their figures are the same, being reduced."""
        del run_context, checkpoint
        first = metrics[0]
        Spool(Path(self._spool)).add(point_of(first, int(first["epoch"])))

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise, and so end the run, if a worker says that the job itself is at fault."""
        del run_context
        for error in worker_exceptions.values():
            failure = job_failure(error)
            if failure is not None:
                raise failure
