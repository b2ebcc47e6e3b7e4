"""When training ends: one pure function over what the epochs measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from schemas.jobfile import StopRules


class Verdict(StrEnum):
    """What follows from the epochs so far."""

    CONTINUE = "continue"
    TARGET = "target"
    PATIENCE = "patience"
    MAX_EPOCHS = "max_epochs"
    DIVERGED = "diverged"


@dataclass(frozen=True, slots=True)
class History:
    """The epochs so far, as far as the rules need them.

    epochs: how many are done. best: the highest value, None before the first.
    reference: the value that the next must beat by ``min_delta`` to count as an
    improvement. stale: epochs since the last improvement. diverged: something that
    was measured was not finite.
    """

    epochs: int = 0
    best: float | None = None
    best_epoch: int = 0
    reference: float | None = None
    stale: int = 0
    diverged: bool = False


def observe(history: History, rules: StopRules, metrics: Mapping[str, float]) -> History:
    """Add one epoch. metrics: all that it measured; more of ``rules.metric`` is better."""
    epochs = history.epochs + 1
    value = metrics[rules.metric]
    if not all(map(math.isfinite, metrics.values())):
        return History(
            epochs,
            history.best,
            history.best_epoch,
            history.reference,
            history.stale + 1,
            diverged=True,
        )
    higher = history.best is None or value > history.best
    improved = history.reference is None or value > history.reference + rules.min_delta
    return History(
        epochs=epochs,
        best=value if higher else history.best,
        best_epoch=epochs if higher else history.best_epoch,
        reference=value if improved else history.reference,
        stale=0 if improved else history.stale + 1,
        diverged=history.diverged,
    )


def judge(history: History, rules: StopRules) -> Verdict:
    """Whether to go on. A target that was reached outweighs everything but divergence."""
    if history.diverged:
        return Verdict.DIVERGED
    if rules.target is not None and history.best is not None and history.best >= rules.target:
        return Verdict.TARGET
    if history.epochs >= rules.max_epochs:
        return Verdict.MAX_EPOCHS
    if history.stale >= rules.patience:
        return Verdict.PATIENCE
    return Verdict.CONTINUE


def target_missed(history: History, rules: StopRules) -> bool:
    """Whether a job that ended with this history fails for its target."""
    if not rules.require_target or rules.target is None:
        return False
    return history.best is None or history.best < rules.target
