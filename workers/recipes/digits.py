"""Handwritten digits: 1,797 real 8 by 8 images that ship with scikit-learn.

The UCI "Optical Recognition of Handwritten Digits" test set (Alpaydin and Kaynak,
1998), pixels 0..16. Small enough to train in seconds on one core, real enough that
accuracy means something.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from schemas.signature import TensorSpec
from workers.errors import UsageError
from workers.task import Splits, Task, cross_entropy

PIXEL_MAX = 16
IMAGE = (8, 8)
CLASSES = 10
VALIDATION_SHARE = 0.2
TEST_SHARE = 0.22
SMOOTHING = 0.05


def _rows() -> NDArray[np.uint8]:
    """(1797, 65): the pixels of each image row by row, then which digit it is.

    Read from scikit-learn's file without importing the package: of all that an import takes
    of a worker's start, it would be the largest part that is not needed.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        msg = "No module named 'sklearn'"
        raise ModuleNotFoundError(msg, name="sklearn")
    path = Path(found.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    with gzip.open(path, "rt") as file:
        return np.loadtxt(file, dtype=np.uint8, delimiter=",")


class Net(nn.Module):
    """Three convolutions and two dense layers, about 118,000 weights at width 1."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        a, b, c = (max(4, int(n * width)) for n in (32, 64, 96))
        self.features = nn.Sequential(
            nn.Conv2d(1, a, 3, padding=1, bias=False),
            nn.BatchNorm2d(a),
            nn.ReLU(),
            nn.Conv2d(a, b, 3, padding=1, bias=False),
            nn.BatchNorm2d(b),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(b * 16, c), nn.ReLU(), nn.Linear(c, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32 (N, 10), of uint8 images (N, 1, 8, 8) with values 0..16."""
        scaled = x.to(torch.float32) * (2.0 / PIXEL_MAX) - 1.0
        logits: Tensor = self.head(self.features(scaled))
        return logits


class Digits(Task):
    """Which digit an image shows.

    config: ``width`` (1.0) scales the net, ``lr`` (0.001), ``batch_size`` (32),
    ``shift`` (1): by how many pixels training images are moved at most.
    """

    labels = tuple(str(digit) for digit in range(CLASSES))
    batch_size = 32

    def __init__(self, config: Mapping[str, Any], seed: int) -> None:
        super().__init__({"lr": 1e-3, **config}, seed)
        known = {"width", "lr", "batch_size", "shift"}
        if unknown := sorted(set(config) - known):
            msg = f"config: digits does not know {', '.join(unknown)}"
            raise UsageError(msg, f"it knows {', '.join(sorted(known))}")
        self.width = float(config.get("width", 1.0))
        self.shift = int(config.get("shift", 1))

    @property
    def input_spec(self) -> TensorSpec:
        """Uint8 (N, 1, 8, 8)."""
        return TensorSpec(
            name="image",
            dtype="uint8",
            shape=(-1, 1, 8, 8),
            layout="NCHW",
            range=(0.0, float(PIXEL_MAX)),
            meaning="grey levels of a handwritten digit, 0 is background",
        )

    def model(self) -> nn.Module:
        """A fresh net."""
        return Net(self.width)

    @cached_property
    def _arrays(self) -> tuple[Tensor, Tensor]:
        rows = _rows()
        x = torch.from_numpy(rows[:, :-1].reshape(-1, 1, *IMAGE).copy())
        return x, torch.from_numpy(rows[:, -1].astype(np.int64))

    def splits(self) -> Splits:
        """Stratified: each class is cut by the same shares, after a seeded shuffle.

        1,041 to learn from, 355 to decide by, 401 held out.
        """
        x, y = self._arrays
        rng = np.random.default_rng(self.seed)
        parts: tuple[list[int], list[int], list[int]] = ([], [], [])
        for label in range(CLASSES):
            rows = rng.permutation(np.flatnonzero(y.numpy() == label))
            n_test = int(np.ceil(len(rows) * TEST_SHARE))
            n_validation = int(len(rows) * VALIDATION_SHARE)
            cuts = np.split(rows, [n_test, n_test + n_validation])
            for part, cut in zip(parts, (cuts[2], cuts[1], cuts[0]), strict=True):
                part.extend(cut.tolist())
        train, validation, test = (
            TensorDataset(x[rows], y[rows]) for rows in (np.sort(part) for part in parts)
        )
        return Splits(train, validation, test)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Cross entropy with label smoothing: a thousand images are soon learnt by heart."""
        return cross_entropy(logits, y, self.class_weights, smoothing=SMOOTHING)

    def augment(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Move each image by up to ``shift`` pixels each way; what enters is background."""
        if self.shift == 0:
            return x
        height, width = x.shape[-2:]
        padded = nn.functional.pad(x, [self.shift] * 4)
        moves = torch.randint(0, 2 * self.shift + 1, (len(x), 2), generator=generator).tolist()
        moved = [
            image[:, dy : dy + height, dx : dx + width]
            for image, (dy, dx) in zip(padded, moves, strict=True)
        ]
        return torch.stack(moved)
