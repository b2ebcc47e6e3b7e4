"""The learning rate over the steps of a training, as a factor of the task's own.

Steps are optimizer steps: several batches where gradients are accumulated.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from schemas.jobfile import Schedule


def factor(step: int, steps_per_epoch: int, max_epochs: int, schedule: Schedule) -> float:
    """By what to multiply the learning rate of a step.

    It rises linearly over the warm-up, of which the last step has the whole rate, then
    falls to ``schedule.floor`` by the end of ``max_epochs``: linearly, or as half a cosine
    (Loshchilov and Hutter, 2017, arXiv 1608.03983, without restarts).

    Args:
        step: counted from 0 over all epochs.
        steps_per_epoch: optimizer steps, at least 1.
        max_epochs: at whose end the floor is reached.
        schedule: what the job file says.
    """
    warm_up = schedule.warmup_epochs * steps_per_epoch
    if step + 1 < warm_up:
        return (step + 1) / warm_up
    if schedule.kind == "constant":
        return 1.0
    length = steps_per_epoch * max_epochs - warm_up
    gone = min(1.0, max(0.0, (step - warm_up) / length)) if length > 0 else 1.0
    left = 1.0 - gone if schedule.kind == "linear" else (1.0 + math.cos(math.pi * gone)) / 2.0
    return schedule.floor + (1.0 - schedule.floor) * left


class Rates:
    """Sets an optimizer's learning rates: each group's own, as the task built it, times the factor.

    Made before a checkpoint is loaded into the optimizer, whose rates are those of some step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule) -> None:
        self._optimizer = optimizer
        self._schedule = schedule
        self._bases = [float(group["lr"]) for group in optimizer.param_groups]
        # A constant rate is left to the task, which may well set it itself.
        self._idle = schedule.kind == "constant" and schedule.warmup_epochs == 0

    def apply(self, step: int, steps_per_epoch: int, max_epochs: int) -> None:
        """Before the step with this number, from 0 over all epochs."""
        if self._idle:
            return
        scale = factor(step, steps_per_epoch, max_epochs, self._schedule)
        for group, base in zip(self._optimizer.param_groups, self._bases, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(base * scale)
            else:
                group["lr"] = base * scale

    @property
    def now(self) -> float:
        """The rate of the first group."""
        return float(self._optimizer.param_groups[0]["lr"])
