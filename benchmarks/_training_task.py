"""The task that every side of the ``training`` benchmark trains, and what it notes of it.

The time is taken here, in what the loop calls for each batch, so that it is the same
measure whatever surrounds the loop: Ray Train, torchrun or nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from workers.recipes.digits import Digits
from workers.task import Splits

OWN = ("repeat", "marks")


class TimedDigits(Digits):
    """The digits' recipe with its training images ``repeat`` times over, without augmentation.

    config: ``repeat`` (20), ``marks``: where each worker notes, as one line per epoch, when
    its first batch and its last batch began (seconds since 1970), and the CPU seconds that
    the process had used by then. The number of samples is cut to a multiple of the batch,
    so that every step is alike.
    """

    def __init__(self, config: Mapping[str, Any], seed: int) -> None:
        super().__init__({k: v for k, v in config.items() if k not in OWN}, seed)
        self.config = config
        self.repeat = int(config.get("repeat", 20))
        self._marks = str(config["marks"])
        self._file: Path | None = None
        self._steps = 0
        self._calls = 0
        self._first = (0.0, 0.0)

    def splits(self) -> Splits:
        """As the recipe's, with the training split repeated."""
        found = super().splits()
        x, y = found.train[:]  # type: ignore[index]
        wanted = len(x) * self.repeat // self.batch_size * self.batch_size
        rows = torch.arange(wanted) % len(x)
        self._steps = wanted // self.batch_size
        return Splits(TensorDataset(x[rows], y[rows]), found.validation, found.test)

    def augment(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Leave the batch as it is; note the time at both ends of an epoch."""
        del generator
        number = self._calls % self._steps
        self._calls += 1
        if number == 0:
            self._first = _now()
            if self._calls == 1:
                self._note("begin", self._first[0])
        if number == self._steps - 1:
            self._note("epoch", *self._first, *_now())
        return x

    def _note(self, *what: object) -> None:
        if self._file is None:
            self._file = Path(f"{self._marks}-{_rank()}-{os.getpid()}")
        with self._file.open("a") as file:
            file.write(" ".join(map(str, what)) + "\n")


def _now() -> tuple[float, float]:
    return time.time(), time.process_time()


def _rank() -> int:
    import torch.distributed as dist  # noqa: PLC0415 - not in every build of torch

    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
