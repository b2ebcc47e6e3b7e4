"""What is measured of a net on the validation split."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Never

import torch
from torch import Tensor

from schemas.job import JobCause
from workers.errors import JobFailed
from workers.training.group import Group
from workers.training.stop import EPOCH_SECONDS, TRAIN_ACCURACY

MAX_OWN = 32
RESERVED = {"epoch", "loss", "validation_loss", "accuracy", "samples_per_s", "lr"} | {
    TRAIN_ACCURACY,
    EPOCH_SECONDS,
}
"""Metrics of the loop; a task's own have other names."""

_NAME = re.compile(r"[A-Za-z]\w{0,49}")


class Tally:
    """Sums over the batches of one worker, kept on the device until they are read."""

    def __init__(self, device: torch.device) -> None:
        self._right = torch.zeros((), dtype=torch.int64, device=device)
        self._device = device
        self._losses: list[Tensor] = []
        self._sizes: list[int] = []
        self._own: dict[str, Tensor] = {}

    def add(self, loss: Tensor, logits: Tensor, y: Tensor, own: Mapping[str, Tensor]) -> None:
        """A batch. own: what ``Task.metrics`` gave for it.

        Raises:
            JobFailed: user_code: a name or a value of ``own`` cannot be used.
        """
        self._losses.append(loss.detach())
        self._sizes.append(len(y))
        self._right += (logits.argmax(1) == y).sum()
        check_own(own, len(y), known=self._own if len(self._sizes) > 1 else None)
        for name, values in own.items():
            start = self._own.get(name, torch.zeros((), dtype=torch.float64, device=self._device))
            self._own[name] = start + values.detach().double().sum()

    def losses(self) -> list[float]:
        """Of the batches, read now."""
        return torch.stack(self._losses).double().tolist() if self._losses else []

    def means(self, group: Group, names: Sequence[str]) -> tuple[float, float, dict[str, float]]:
        """Loss, accuracy and own metrics, over the samples of all workers.

        names: of the own ones, the same on every worker; a worker may have had no batch.
        """
        loss = sum(v * n for v, n in zip(self.losses(), self._sizes, strict=True))
        own = [float(self._own.get(name, 0.0)) for name in names]
        found = group.sum([loss, float(self._right), float(sum(self._sizes)), *own])
        n = max(found[2], 1.0)
        values = {name: value / n for name, value in zip(names, found[3:], strict=True)}
        return found[0] / n, found[1] / n, values

    def own_names(self, group: Group) -> tuple[str, ...]:
        """The names of own metrics, over all workers."""
        return tuple(sorted({name for names in group.gather(sorted(self._own)) for name in names}))


def check_own(
    own: Mapping[str, Tensor], batch: int, *, known: Mapping[str, Tensor] | None = None
) -> None:
    """Whether what ``Task.metrics`` gave can be used. known: those of earlier batches.

    Raises:
        JobFailed: user_code, saying what is wrong.
    """
    if len(own) > MAX_OWN:
        _refuse(f"it gives {len(own)} metrics, more than {MAX_OWN}")
    if known is not None and set(own) != set(known):
        _refuse(f"it gave {sorted(known)} before and now {sorted(own)}; give the same always")
    for name, values in own.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED:
            _refuse(f"{name!r} is no name for a metric, or one of {sorted(RESERVED)}")
        if not isinstance(values, Tensor) or tuple(values.shape) != (batch,):
            shape = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            _refuse(f"{name} is {shape}, not one value per sample ([{batch}])")


def check_finite(own: Mapping[str, float], epoch: int) -> None:
    """Whether own metrics are numbers; what is none cannot travel.

    Raises:
        JobFailed: user_code, naming the first that is not.
    """
    for name, value in own.items():
        if not math.isfinite(value):
            _refuse(f"{name} is {value} over the validation split of epoch {epoch}")


def _refuse(what: str) -> Never:
    raise JobFailed(JobCause.USER_CODE, f"Task.metrics: {what}")
