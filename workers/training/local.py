"""Training in this process, without Ray: for ``run-local`` and for trying a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from schemas.jobfile import JobSpec
from workers.task import Task
from workers.training.loop import Metrics, Trained, run, unpack
from workers.training.steps import Step


class LocalEngine:
    """One worker; keeps the last checkpoint and the best one by ``metric`` in memory."""

    def __init__(
        self,
        metric: str,
        on_epoch: Callable[[Metrics], None] | None = None,
        checkpoint: bytes | None = None,
        on_step: Callable[[Step], None] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.rank = 0
        self.world_size = 1
        self.device = device or torch.device("cpu")
        self.reports: list[Metrics] = []
        self.last = checkpoint
        self.best = checkpoint
        self._metric = metric
        self._on_epoch = on_epoch
        self._on_step = on_step
        self._best_value = float("-inf")

    def restore(self) -> bytes | None:
        """The checkpoint it was made with, or the last one reported."""
        return self.last

    def report(self, metrics: Metrics, checkpoint: bytes | None) -> None:
        """Keep the epoch."""
        self.reports.append(metrics)
        if checkpoint is not None:
            self.last = checkpoint
            if metrics[self._metric] > self._best_value:
                self._best_value = metrics[self._metric]
                self.best = checkpoint
        if self._on_epoch is not None:
            self._on_epoch(metrics)

    def beat(self) -> None:
        """Nothing watches a run in this process."""

    def live(self, step: Step) -> None:
        """Pass the step on."""
        if self._on_step is not None:
            self._on_step(step)


def train_here(
    task: Task, spec: JobSpec, on_epoch: Callable[[Metrics], None] | None = None
) -> tuple[dict[str, Any], Trained]:
    """Train in this process; the best weights (a state dict) and how it ended."""
    engine = LocalEngine(spec.stop.metric, on_epoch)
    trained = run(task, spec, engine)
    return unpack(engine.best or b"")["model"], trained
