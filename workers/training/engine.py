"""What surrounds the training loop: Ray Train's worker, or a process of its own."""

from __future__ import annotations

from typing import Protocol

import torch

from workers.training.steps import Step

Metrics = dict[str, float]


class Engine(Protocol):
    """What the loop needs of its surroundings.

    rank, world_size: this worker's place among those that train together. device: where
    to compute.
    """

    rank: int
    world_size: int
    device: torch.device

    def restore(self) -> bytes | None:
        """The last checkpoint, if this is not the first start."""

    def report(self, metrics: Metrics, checkpoint: bytes | None) -> None:
        """Hand over an epoch. Every worker calls it once per epoch: it is a barrier.

        checkpoint: None after an epoch that none is taken of, and on every rank but 0.
        """

    def beat(self) -> None:
        """Progress was made: a batch, or what comes between them. Cheap."""

    def live(self, step: Step) -> None:
        """How the epoch goes; on rank 0 alone, at most twice a second."""
