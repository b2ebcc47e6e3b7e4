"""The batches of one worker: which samples, and how they are read."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset, get_worker_info

from schemas.job import JobCause
from workers.blame import user_code
from workers.errors import JobFailed, UsageError
from workers.sampling import (
    Indices,
    consecutive,
    cut,
    interleaved,
    shuffled,
    shuffled_shards,
    strided,
)
from workers.shards import ShardedSamples
from workers.task import Samples, Splits

Batch = tuple[Tensor, Tensor]
VALIDATION_BATCH = 256
_PAIR = 2


@dataclass(frozen=True, slots=True)
class _Ask:
    """One batch asked for. seed: of what the data set draws itself in a loading process."""

    indices: Indices
    seed: int


class _Plan(Sampler[_Ask]):
    """The batches of the epoch at hand."""

    def __init__(self) -> None:
        self.batches: list[Indices] = []
        self.seed = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[_Ask]:
        for number, indices in enumerate(self.batches):
            yield _Ask(indices, self.seed * 1_000_003 + number)


class _Fetch(Dataset[Any]):
    """Makes a batch of what was asked for.

    A failure travels as a value: as an exception it would lose its cause on the way out of
    a loading process.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __getitems__(self, ask: _Ask) -> Batch | JobFailed:
        if get_worker_info() is not None:
            seed_all(ask.seed)
        try:
            with user_code():
                return fetch(self._samples, ask.indices)
        except JobFailed as failure:
            return failure


def seed_all(seed: int) -> None:
    """Seed everything that a task may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - what users' code draws from


def fetch(samples: Samples, indices: Indices) -> Batch:
    """Some samples as one batch.

    Raises:
        JobFailed: bad_data: a sample is no pair, its class no whole number, or two differ
            in shape.
    """
    if isinstance(samples, ShardedSamples):
        return samples.batch(indices)
    if type(samples) is TensorDataset and len(samples.tensors) == _PAIR:
        rows = torch.from_numpy(indices)
        return _plain(samples.tensors[0][rows]), _plain(samples.tensors[1][rows]).long()
    pairs = [samples[index] for index in indices.tolist()]
    try:
        x = _plain(torch.stack([torch.as_tensor(pair[0]) for pair in pairs]))
        y = torch.tensor([int(pair[1]) for pair in pairs], dtype=torch.int64)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        text = str(error).splitlines()[0][:300]
        detail = (
            f"samples {_some(indices.tolist())} make no batch: {text}; "
            "each must be a pair of an input, all of one shape, and a class"
        )
        raise JobFailed(JobCause.BAD_DATA, detail) from error
    return x, y


def _plain(values: Tensor) -> Tensor:
    """On the CPU and without a gradient, whatever a task's samples are."""
    return values.detach().cpu()


def _some(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:8]))
    return shown if len(indices) <= 8 else f"{shown} … ({len(indices)} in all)"  # noqa: PLR2004


def _as_it_is(batch: Any) -> Any:
    return batch


class Feed:
    """The batches of one worker out of ``world_size``.

    Args:
        splits: the task's.
        batch_size: samples per batch over all workers.
        rank: this worker.
        world_size: workers.
        seed: with the epoch, it gives the order.
        loaders: processes that load; 0 loads in this one.
        pin: into pinned memory, for CUDA.
    """

    def __init__(
        self,
        splits: Splits,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        loaders: int = 0,
        pin: bool = False,
    ) -> None:
        for name in ("train", "validation"):
            if len(splits.get(name)) == 0:
                msg = f"the {name} split is empty"
                raise UsageError(msg, "give it samples")
        self._splits = splits
        self._rank, self._world_size, self._seed = rank, world_size, seed
        self._each = max(1, batch_size // world_size)
        self._loaders = loaders
        self._train_plan, self._validation_plan = _Plan(), _Plan()
        self._validation_plan.batches = cut(
            self._validation_share(), max(VALIDATION_BATCH, self._each)
        )
        self._validation_plan.seed = seed
        self._train = _loader(splits.train, self._train_plan, loaders, pin=pin)
        self._validation = _loader(splits.validation, self._validation_plan, loaders, pin=pin)
        self.plan(1)

    def plan(self, epoch: int) -> list[Indices]:
        """The training batches of an epoch (from 1), as indices; the same for the same epoch."""
        train = self._splits.train
        share: dict[str, int] = {
            "rank": self._rank,
            "world_size": self._world_size,
            "seed": self._seed,
            "epoch": epoch,
        }
        if isinstance(train, ShardedSamples):
            lengths = [shard.length for shard in train.shards]
            batches = interleaved(cut(shuffled_shards(lengths, **share), self._each), self._loaders)
        else:
            batches = cut(shuffled(len(train), **share), self._each)
        self._train_plan.batches = batches
        self._train_plan.seed = (self._seed * 1_000_003 + epoch) * 1009 + self._rank
        return batches

    def __len__(self) -> int:
        """Training batches of an epoch; the same for each, and for each worker."""
        return len(self._train_plan)

    def train(self, epoch: int) -> Iterator[Batch]:
        """The training batches of an epoch (from 1)."""
        self.plan(epoch)
        return _checked(self._train)

    def validation(self) -> Iterator[Batch]:
        """This worker's share of the validation split; over all workers, each sample once."""
        return _checked(self._validation)

    def validation_plan(self) -> list[Indices]:
        """The batches of that share, as indices."""
        return self._validation_plan.batches

    def refetch(self, split: str, indices: Indices) -> Batch:
        """A batch once more, in this process: to look at what is in it."""
        with user_code():
            return fetch(self._splits.get(split), indices)

    def names(self, split: str, indices: Indices) -> list[str]:
        """Samples as a person finds them: by index, or by shard and row."""
        samples = self._splits.get(split)
        if isinstance(samples, ShardedSamples):
            return [samples.describe(index) for index in indices.tolist()]
        return [str(index) for index in indices.tolist()]

    def class_counts(self, classes: int, beat: Callable[[], None]) -> NDArray[np.int64]:
        """Training samples of each class in this worker's share, the shares being disjoint.

        Inputs are read only where labels cannot be had without, and one at a time.

        Raises:
            JobFailed: bad_data: a class has no label.
        """
        counts = np.zeros(classes, dtype=np.int64)
        for labels in self._labels(beat):
            if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
                detail = (
                    f"the train split holds class {labels.min()}..{labels.max()}, but there are "
                    f"{classes} labels; number the classes from 0 in the order of the labels"
                )
                raise JobFailed(JobCause.BAD_DATA, detail)
            counts += np.bincount(labels, minlength=classes)
        return counts

    def _labels(self, beat: Callable[[], None]) -> Iterator[NDArray[np.int64]]:
        train = self._splits.train
        with user_code():
            if isinstance(train, ShardedSamples):
                for number in range(self._rank, len(train.shards), self._world_size):
                    beat()
                    yield train.labels(number)
                return
            mine = strided(len(train), rank=self._rank, world_size=self._world_size)
            if type(train) is TensorDataset and len(train.tensors) == _PAIR:
                yield train.tensors[1][torch.from_numpy(mine)].long().numpy()
                return
            for part in cut(mine, 1024):
                beat()
                yield np.array([int(train[i][1]) for i in part.tolist()], dtype=np.int64)

    def _validation_share(self) -> Indices:
        samples = self._splits.validation
        share = consecutive if isinstance(samples, ShardedSamples) else strided
        return share(len(samples), rank=self._rank, world_size=self._world_size)


def _loader(samples: Samples, plan: _Plan, loaders: int, *, pin: bool) -> DataLoader[Any]:
    # Spawned, not forked: a worker of Ray has threads, whose locks a fork would copy as held.
    options: dict[str, Any] = {}
    if loaders:
        options = {"persistent_workers": True, "multiprocessing_context": "spawn"}
    return DataLoader(
        _Fetch(samples),
        batch_sampler=plan,  # type: ignore[arg-type]  # one ask is one batch
        num_workers=loaders,
        collate_fn=_as_it_is,
        pin_memory=pin,
        **options,
    )


def _checked(loader: DataLoader[Any]) -> Iterator[Batch]:
    for found in loader:
        if isinstance(found, JobFailed):
            raise found
        yield found
