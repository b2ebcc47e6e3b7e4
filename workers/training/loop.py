"""The training loop of one worker: plain PyTorch, the same with and without Ray.

Data-parallel by ``DistributedDataParallel`` where a process group exists. What the
loop needs of its surroundings is the ``Engine`` protocol.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from schemas.job import JobCause
from schemas.jobfile import JobSpec
from workers.errors import JobFailed
from workers.task import Task
from workers.training.checkpoint import pack, unpack
from workers.training.engine import Engine, Metrics
from workers.training.stop import History, Verdict, checkpoint_due, judge, observe, seconds_left
from workers.training.trainer import Trainer

__all__ = ["Engine", "Metrics", "Trained", "pack", "run", "unpack"]


@dataclass(frozen=True, slots=True)
class Trained:
    """How training ended. history counts the epochs of all attempts."""

    verdict: Verdict
    history: History


def run(
    task: Task,
    spec: JobSpec,
    engine: Engine,
    *,
    clock: Callable[[], float] = time.perf_counter,
    read_every: int | None = None,
) -> Trained:
    """Train until the stop rules say so, from the last checkpoint if there is one.

    Args:
        task: what to learn.
        spec: the job.
        engine: the surroundings.
        clock: seconds, monotonic.
        read_every: optimizer steps between two looks at the losses; see ``StepGuard``.

    Raises:
        JobFailed: diverged: a loss or a gradient was not finite, with the batch that made
            it; user_code: the task's own code raised, or gave what cannot be used.
    """
    trainer = Trainer(task, spec, engine, clock=clock, read_every=read_every)
    history = trainer.restore()
    while (verdict := judge(history, spec.stop)) is Verdict.CONTINUE:
        metrics = trainer.epoch(history.epochs + 1, seconds_left(history, spec.stop))
        history = observe(history, spec.stop, metrics)
        if not history.diverged:
            due = checkpoint_due(history, spec.stop, spec.training.checkpoint_every)
            engine.report(metrics, trainer.checkpoint(history) if due else None)
            engine.beat()
    if verdict is Verdict.DIVERGED:
        detail = f"a metric was not finite in epoch {history.epochs}; lower the learning rate"
        raise JobFailed(JobCause.DIVERGED, detail)
    return Trained(verdict, history)
