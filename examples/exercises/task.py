"""Which of seven shoulder exercises a person does, from the smartwatch on the wrist.

140 recordings of 10 people, acceleration and rotation at 50 Hz (Burns et al., 2018, arXiv
1802.01489); they ship with the package seglearn. People move differently, so the splits are
by person: six are trained on, two decide, two are held out. Accuracy on windows of the same
people would look far better and mean little.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from seglearn.datasets import load_watch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from schemas.signature import TensorSpec
from workers.task import Splits, Task

CHANNELS = 6
WINDOW = 200
"""Values per channel: 4 s at 50 Hz."""

PEOPLE = range(1, 11)
STEP = 50
"""Training windows overlap, from one to the next by all but 1 s; the others do not."""

SPREAD = (1.0, 1.0, 1.0, 2.0, 2.0, 2.0)
"""Of each channel, roughly: acceleration in g, rotation in rad/s."""


class Net(nn.Module):
    """Three convolutions over time and one dense layer, about 25,000 weights."""

    def __init__(self, width: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        self.register_buffer("spread", torch.tensor(SPREAD).reshape(1, CHANNELS, 1))
        self.layers = nn.Sequential(
            *_convolution(CHANNELS, width, kernel=7),
            *_convolution(width, 2 * width, kernel=5),
            *_convolution(2 * width, 2 * width, kernel=3),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, len(Exercises.labels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 7) of raw windows, float32 (N, 6, 200)."""
        logits: Tensor = self.layers(x / self.spread)
        return logits


def _convolution(taken: int, given: int, *, kernel: int) -> tuple[nn.Module, ...]:
    halving = nn.Conv1d(taken, given, kernel, stride=2, padding=kernel // 2, bias=False)
    return halving, nn.BatchNorm1d(given), nn.ReLU()


class Exercises(Task):
    """config: turn (0.6): by how many radians windows are turned; lr and batch_size (64)."""

    labels = (
        "pendulum",
        "abduction",
        "forward elevation",
        "internal rotation",
        "external rotation",
        "trapezius extension",
        "row",
    )

    def __init__(self, config: Mapping[str, Any], seed: int) -> None:
        super().__init__(config, seed)
        self.turn = float(config.get("turn", 0.6))

    @property
    def input_spec(self) -> TensorSpec:
        """Float32 (N, 6, 200), as the watch gives it."""
        return TensorSpec(
            name="motion",
            dtype="float32",
            shape=(-1, CHANNELS, WINDOW),
            layout="NCT",
            range=(-35.0, 35.0),
            meaning="acceleration x, y, z in g and rotation x, y, z in rad/s, 4 s at 50 Hz",
        )

    def model(self) -> nn.Module:
        """A fresh net."""
        return Net()

    @cached_property
    def _watch(self) -> dict[str, Any]:
        found: dict[str, Any] = load_watch()
        return found

    def splits(self) -> Splits:
        """By person, shuffled by the seed."""
        people = np.random.default_rng(self.seed).permutation(list(PEOPLE))
        return Splits(
            self._windows(people[:6], STEP),
            self._windows(people[6:8], WINDOW),
            self._windows(people[8:], WINDOW),
        )

    def _windows(self, people: np.ndarray, step: int) -> TensorDataset:
        watch = self._watch
        inputs, classes = [], []
        for recording, exercise, person in zip(
            watch["X"], watch["y"], watch["subject"], strict=True
        ):
            if person not in people:
                continue
            for start in range(0, len(recording) - WINDOW + 1, step):
                inputs.append(recording[start : start + WINDOW].T.astype(np.float32))
                classes.append(int(exercise))
        return TensorDataset(torch.from_numpy(np.stack(inputs)), torch.tensor(classes))

    def augment(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Turn each window, as if the watch sat differently on the wrist.

        By an angle drawn from a normal distribution, about an axis of any direction
        (Rodrigues' formula); acceleration and rotation turn alike.
        """
        n = len(x)
        axis = nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
        angle = (torch.randn(n, generator=generator) * self.turn).reshape(n, 1, 1)
        cross = torch.linalg.cross(axis.unsqueeze(1).expand(n, 3, 3), torch.eye(3).expand(n, 3, 3))
        turn = torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)
        return torch.cat([turn @ x[:, :3], turn @ x[:, 3:]], dim=1)
