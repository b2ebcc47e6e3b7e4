"""Data sets as arrays: stacking, hashing, and the batches of one worker."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from schemas.model import TensorSpec
from workers.blame import user_code
from workers.errors import UsageError
from workers.task import SPLITS, Samples, Splits, Task


@dataclass(frozen=True, slots=True)
class Labelled:
    """Samples as arrays. x: (n, …) in the served dtype; y: int64 (n,)."""

    x: NDArray[np.generic]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


def split_arrays(task: Task, split: str, *, limit: int | None = None) -> Labelled:
    """A split of a task, checked against its signature. limit: its first samples only.

    Raises:
        UsageError: there is no such split, or its samples do not fit ``input_spec``.
    """
    with user_code():
        samples = task.splits().get(split)
    return stack(samples, task.input_spec, split, len(task.labels), limit=limit)


def stack(
    samples: Samples, spec: TensorSpec, split: str, classes: int, *, limit: int | None = None
) -> Labelled:
    """Samples as arrays.

    Raises:
        UsageError: there are none, or a sample has another dtype, shape or class than said.
    """
    n = len(samples) if limit is None else min(limit, len(samples))
    if n == 0:
        msg = f"the {split} split is empty"
        raise UsageError(msg, "give it samples")
    with user_code():
        pairs = [samples[i] for i in range(n)]
    x = torch.stack([torch.as_tensor(pair[0]) for pair in pairs]).numpy()
    y = np.array([int(pair[1]) for pair in pairs], dtype=np.int64)
    _check(x, y, spec, split, classes)
    return Labelled(x, y)


def _check(
    x: NDArray[np.generic], y: NDArray[np.int64], spec: TensorSpec, split: str, classes: int
) -> None:
    if str(x.dtype) != spec.dtype or x.shape[1:] != spec.shape[1:]:
        msg = (
            f"the {split} split holds {x.dtype}{list(x.shape[1:])}, "
            f"but input_spec says {spec.dtype}{list(spec.shape[1:])}"
        )
        raise UsageError(msg, "make both the same")
    if y.min() < 0 or y.max() >= classes:
        msg = f"the {split} split holds class {y.min()}..{y.max()}, but there are {classes} labels"
        raise UsageError(msg, "number the classes from 0 in the order of the labels")


def set_sha256(data: Labelled) -> str:
    """The hash of a set: of its dtype, shape, inputs and classes, in order."""
    digest = hashlib.sha256(f"{data.x.dtype}{data.x.shape}".encode())
    digest.update(np.ascontiguousarray(data.x).tobytes())
    digest.update(data.y.tobytes())
    return digest.hexdigest()


def dataset_sha256(parts: dict[str, Labelled]) -> str:
    """The hash of all splits together."""
    digest = hashlib.sha256()
    for name in SPLITS:
        digest.update(f"{name}:{set_sha256(parts[name])}\n".encode())
    return digest.hexdigest()


class _AsDataset(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self._samples[index]
        return x, torch.as_tensor(y, dtype=torch.long)


class Feed:
    """The batches of one worker out of ``world_size``.

    Training batches come from a ``DistributedSampler``, shuffled anew each epoch by
    (seed, epoch); validation is cut without padding, so that sums over the workers
    count each sample once.
    """

    def __init__(
        self, splits: Splits, *, batch_size: int, rank: int, world_size: int, seed: int
    ) -> None:
        train = _AsDataset(splits.train)
        per_worker = max(1, batch_size // world_size)
        self._sampler: DistributedSampler[tuple[Tensor, Tensor]] = DistributedSampler(
            train, num_replicas=world_size, rank=rank, shuffle=True, seed=seed, drop_last=False
        )
        self._train = DataLoader(train, batch_size=per_worker, sampler=self._sampler)
        validation = _AsDataset(splits.validation)
        share = torch.utils.data.Subset(validation, range(rank, len(validation), world_size))
        self._validation = DataLoader(share, batch_size=max(256, per_worker))

    def train(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of an epoch (from 1)."""
        self._sampler.set_epoch(epoch)
        return iter(self._train)

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This worker's share of the validation split."""
        return iter(self._validation)
