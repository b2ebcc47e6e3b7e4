"""Finds out which batch, of which worker, made the loss or the gradients not finite.

It reads the batch once more and, for gradients, computes them once more: it costs nothing
until there is something to explain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from schemas.job import JobCause
from workers.errors import JobFailed
from workers.sampling import Indices
from workers.task import Task
from workers.training.divergence import BatchFacts, Finding, choose, facts_of, sentence
from workers.training.engine import Engine
from workers.training.feed import Batch, Feed
from workers.training.group import Group
from workers.training.step_guard import Bad


class Diagnosis:
    """Explains a failure; for one training."""

    def __init__(
        self, task: Task, net: nn.Module, feed: Feed, engine: Engine, group: Group
    ) -> None:
        self._task, self._net, self._feed = task, net, feed
        self._engine, self._group = engine, group

    def lost(self, epoch: int, bad: Bad, together: int, rate: float) -> JobFailed:
        """A training batch was not finite. together: batches per step."""
        loss_is_bad = not math.isfinite(bad.loss)
        number, shared = bad.batch, False
        if not loss_is_bad:
            first = bad.batch - bad.batch % together
            found = self._culprit(epoch, range(first, bad.batch + 1))
            number = bad.batch if found is None else found
            shared = found is None and (self._group.together or together > 1)
        names, facts, augmented = self._look("train", self._feed.plan(epoch)[number])
        own = Finding(
            what="loss" if loss_is_bad else "gradient",
            value=bad.loss if loss_is_bad else bad.norm,
            rank=self._engine.rank,
            epoch=epoch,
            batch=number + 1,
            split="training",
            last_loss=bad.last_loss,
            rate=rate,
            shared=shared,
            names=names,
            facts=facts,
            augmented_broken=augmented,
        )
        # The gradients are the same on all workers: where they are not finite, all are here.
        agreed = not math.isfinite(bad.norm)
        return _failed(self._group.gather(own) if agreed else [own])

    def lost_in_validation(
        self, epoch: int, losses: Sequence[float], last_loss: float | None, rate: float
    ) -> JobFailed:
        """The validation loss is not finite. losses: of this worker's batches.

        All workers are here, as the sum over them is the same.
        """
        own = None
        number = next((i for i, v in enumerate(losses) if not math.isfinite(v)), None)
        if number is not None:
            indices = self._feed.validation_plan()[number]
            names, facts, _ = self._look("validation", indices)
            own = Finding(
                what="validation loss",
                value=losses[number],
                rank=self._engine.rank,
                epoch=epoch,
                batch=number + 1,
                split="validation",
                last_loss=last_loss,
                rate=rate,
                names=names,
                facts=facts,
            )
        return _failed(self._group.gather(own))

    def _look(self, split: str, indices: Indices) -> tuple[tuple[str, ...], BatchFacts, bool]:
        """A batch's samples, what is in it, and whether ``augment`` breaks it."""
        x, y = self._feed.refetch(split, indices)
        facts = facts_of(x, y)
        broken = False
        if split == "train" and not facts.broken:
            varied = self._task.augment(x, torch.Generator().manual_seed(0))
            broken = varied.is_floating_point() and not bool(torch.isfinite(varied).all())
        return tuple(self._feed.names(split, indices)), facts, broken

    def _culprit(self, epoch: int, numbers: range) -> int | None:
        """The first of a step's batches whose own gradients are not finite, if that shows again.

        It does not where weights have already taken such a step, or where it came of what
        was drawn at random.
        """
        parameters = [p for p in self._net.parameters() if p.requires_grad]
        if not all(bool(torch.isfinite(p).all()) for p in parameters):
            return None
        self._net.train()
        for number in numbers:
            batch = self._feed.refetch("train", self._feed.plan(epoch)[number])
            if not math.isfinite(self._norm(parameters, batch)):
                return number
        return None

    def _norm(self, parameters: list[nn.Parameter], batch: Batch) -> float:
        x, y = (part.to(self._engine.device) for part in batch)
        loss: Tensor = self._task.loss(self._net(x), y).reshape(())
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return float(get_total_norm([g for g in gradients if g is not None]))


def _failed(findings: Sequence[Finding | None]) -> JobFailed:
    found = choose(findings)
    if found is None:  # finite on each worker, and yet not their sum
        return JobFailed(
            JobCause.DIVERGED, "the loss is too large to add up; lower the learning rate"
        )
    return JobFailed(JobCause.DIVERGED, sentence(found))
