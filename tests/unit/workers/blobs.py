"""A small task whose every batch can be checked by hand, for the tests of the loop."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.data import Subset, TensorDataset

from schemas.jobfile import JobSpec, Resources, StopRules, Training
from schemas.signature import TensorSpec
from workers.shards import Shard, ShardedSamples
from workers.task import Splits, Task

CLASSES = 3
FEATURES = 4
TRAIN, HELD_OUT = 70, 33


def arrays(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points around one centre per class; class 2 is rare."""
    rng = np.random.default_rng(seed)
    y = rng.choice(CLASSES, size=n, p=[0.6, 0.3, 0.1])
    x = rng.normal(size=(n, FEATURES)) + 1.5 * np.eye(CLASSES, FEATURES)[y]
    return x.astype(np.float32), y.astype(np.int64)


class Blobs(Task):
    """config: ``bad`` (indices of training samples that hold a NaN), ``shards``, ``lr``."""

    labels = ("a", "b", "c")
    batch_size = 8

    @property
    def input_spec(self) -> TensorSpec:
        return TensorSpec(name="x", dtype="float32", shape=(-1, FEATURES))

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))

    def splits(self) -> Splits:
        x, y = arrays(TRAIN, self.seed)
        x[list(self.config.get("bad", ()))] = np.nan
        if self.config.get("unlabelled"):
            y[0] = CLASSES
        n = int(self.config.get("held", HELD_OUT))
        held = TensorDataset(*map(torch.from_numpy, arrays(n, self.seed + 1000)))
        if lengths := self.config.get("shards"):
            return Splits(sharded(x, y, lengths), held, held)
        return Splits(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), held, held)


class InMemory:
    """Loads shards of arrays, and counts how often."""

    def __init__(self, x: np.ndarray, y: np.ndarray, lengths: Sequence[int]) -> None:
        ends = np.cumsum(lengths)
        self.parts = {
            f"shard-{i}": (x[end - n : end], y[end - n : end])
            for i, (end, n) in enumerate(zip(ends, lengths, strict=True))
        }
        self.loads: list[str] = []

    def __call__(self, shard: Shard) -> tuple[np.ndarray, np.ndarray]:
        self.loads.append(shard.key)
        return self.parts[shard.key]


def sharded(x: np.ndarray, y: np.ndarray, lengths: Sequence[int], **options) -> ShardedSamples:
    load = InMemory(x, y, lengths)
    return ShardedSamples([Shard(k, len(p[1])) for k, p in load.parts.items()], load, **options)


class OneSum(Blobs):
    """Plain descent, so that a step's gradient shows in the weights."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=float(self.config.get("lr", 0.1)))


class RootOfZero(OneSum):
    """A finite loss whose gradient is not, for batches with sample ``config["at"]``."""

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        found = super().loss(logits, y)
        if not torch.is_grad_enabled() or not bool((y == 2).any()):
            return found
        return found + torch.sqrt(logits[0, 0] * 0.0)


def spec_of(
    stop: Mapping[str, Any] | None = None,
    *,
    task: str = "tests.unit.workers.blobs:Blobs",
    precision: str = "fp32",
    seed: int = 0,
    **training: Any,
) -> JobSpec:
    rules = {"max_epochs": 3, "patience": 1000, "require_target": False, **(stop or {})}
    return JobSpec(
        name="blobs",
        task=task,
        stop=StopRules(**rules),
        training=Training(**training),
        resources=Resources(precision=precision),
        seed=seed,
    )


class Reading(Blobs):
    """Looks at its data as it is made."""

    def __init__(self, config: Mapping[str, Any], seed: int) -> None:
        super().__init__(config, seed)
        self.found = self.data_path


class Idle(OneSum):
    """A net with a part that its forward leaves out."""

    def model(self) -> nn.Module:
        return WithIdle(super().model())


class WithIdle(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.idle = net, nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Drifting(Blobs):
    """Splits that are others in each process."""

    def splits(self) -> Splits:
        whole = super().splits()
        n = TRAIN - (dist.get_rank() if dist.is_initialized() else 0)
        return Splits(Subset(whole.train, range(n)), whole.validation, whole.test)


class Quitting(Blobs):
    """Ends its process, as a script would."""

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        sys.exit(f"done after {logits.shape} and {y.shape}")


class Uneven(Blobs):
    """Measures something of its own."""

    def metrics(self, logits: Tensor, y: Tensor) -> Mapping[str, Tensor]:
        return {"one": torch.ones(len(y)) + 0.0 * logits[:, 0]}
