"""Finds the first step whose loss or gradient is not finite, without waiting for the device.

On a GPU, reading a number waits for all that was launched. Losses and norms therefore stay
where they are, and are read together every so many steps; on a CPU they are read at once,
and a step that is not finite is never made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

READ_EVERY = 50
"""Optimizer steps between two readings on a GPU."""


@dataclass(frozen=True, slots=True)
class Bad:
    """The first that was not finite.

    batch: its number in the epoch, from 0. loss: of that batch. norm: of the gradients of
    its step. last_loss: the newest finite one before, None if there was none.
    """

    batch: int
    loss: float
    norm: float
    last_loss: float | None


@dataclass(frozen=True, slots=True)
class _Step:
    """losses: of its batches, of which the first has the number ``first``."""

    first: int
    losses: tuple[float, ...]
    norm: float


class StepGuard:
    """Collects losses and norms of an epoch, and reads them now and then.

    Args:
        device: where they are.
        every: optimizer steps between readings; 1 on a CPU, ``READ_EVERY`` elsewhere,
            unless given.
    """

    def __init__(self, device: torch.device, every: int | None = None) -> None:
        self._every = every or (1 if device.type == "cpu" else READ_EVERY)
        self.last_loss: float | None = None
        self.begin()

    def begin(self) -> None:
        """Before an epoch."""
        self.total = 0.0
        self._batches = 0
        self._losses: list[Tensor] = []
        self._sizes: list[int] = []
        self._steps: list[tuple[int, int]] = []
        self._norms: list[Tensor] = []

    @property
    def deferred(self) -> bool:
        """Whether steps are made before their losses are read."""
        return self._every > 1

    def saw(self, loss: Tensor, samples: int) -> None:
        """A batch's mean loss, over so many samples."""
        self._losses.append(loss.detach())
        self._sizes.append(samples)

    def step(self, norm: Tensor) -> Bad | None:
        """The batches since the last call make a step, whose gradients have this norm.

        Returns:
            What was not finite, if this call reads and there was any.
        """
        done = sum(end - start for start, end in self._steps)
        self._steps.append((done, len(self._losses)))
        self._norms.append(norm.detach())
        return self.read() if len(self._steps) >= self._every else None

    def peek(self) -> float | None:
        """The newest loss, read now. For display: on a GPU it waits for the device."""
        if self._losses:
            self.last_loss = _finite(float(self._losses[-1]), self.last_loss)
        return self.last_loss

    def read(self) -> Bad | None:
        """Read what has come since the last reading; at the epoch's end, what is left."""
        losses, norms = _values(self._losses), _values(self._norms)
        steps = [
            _Step(self._batches + start, tuple(losses[start:end]), norm)
            for (start, end), norm in zip(self._steps, norms, strict=True)
        ]
        self.total += sum(loss * n for loss, n in zip(losses, self._sizes, strict=True))
        bad = first_bad(steps, self.last_loss)
        self.last_loss = next((v for v in reversed(losses) if math.isfinite(v)), self.last_loss)
        self._batches += len(losses)
        self._losses, self._sizes, self._steps, self._norms = [], [], [], []
        return bad


def first_bad(steps: list[_Step], last_loss: float | None) -> Bad | None:
    """The first batch with a loss that is not finite, or the first step with such gradients.

    Of a step whose losses are all finite, the last batch is named. last_loss: before them.
    """
    for step in steps:
        for number, loss in enumerate(step.losses, start=step.first):
            if not math.isfinite(loss):
                return Bad(number, loss, step.norm, last_loss)
            last_loss = loss
        if not math.isfinite(step.norm):
            last = step.first + len(step.losses) - 1
            return Bad(last, step.losses[-1], step.norm, last_loss)
    return None


def _values(tensors: list[Tensor]) -> list[float]:
    if len(tensors) < 2 or tensors[0].device.type == "cpu":  # noqa: PLR2004 - no need to stack
        return [float(t) for t in tensors]
    found: list[float] = torch.stack([t.float() for t in tensors]).tolist()
    return found


def _finite(value: float, otherwise: float | None) -> float | None:
    return value if math.isfinite(value) else otherwise
