"""When training ends: pure functions over what the epochs measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from schemas.jobfile import StopRules

SECONDS_PER_HOUR = 3600.0
TRAIN_ACCURACY = "train_accuracy"
EPOCH_SECONDS = "epoch_seconds"


class Verdict(StrEnum):
    """What follows from the epochs so far."""

    CONTINUE = "continue"
    TARGET = "target"
    PATIENCE = "patience"
    OVERFIT = "overfit"
    MAX_EPOCHS = "max_epochs"
    TIME = "time"
    DIVERGED = "diverged"


@dataclass(frozen=True, slots=True)
class History:
    """The epochs so far, as far as the rules need them.

    epochs: how many are done. best: the highest value, None before the first.
    reference: the value that the next must beat by ``min_delta`` to count as an
    improvement. stale: epochs since the last improvement. diverged: something that
    was measured was not finite. gap_epochs: the newest epochs, in a row, whose training
    accuracy was too far above. seconds: that the epochs took, those of earlier attempts
    included.
    """

    epochs: int = 0
    best: float | None = None
    best_epoch: int = 0
    reference: float | None = None
    stale: int = 0
    diverged: bool = False
    gap_epochs: int = 0
    seconds: float = 0.0


def history_of(stored: Mapping[str, Any]) -> History:
    """A history as a checkpoint holds it: of an older version with less, of a newer with more."""
    known = {field.name for field in fields(History)}
    return History(**{key: value for key, value in stored.items() if key in known})


def observe(history: History, rules: StopRules, metrics: Mapping[str, float]) -> History:
    """Add one epoch. metrics: all that it measured; more of ``rules.metric`` is better."""
    epochs = history.epochs + 1
    finite = all(map(math.isfinite, metrics.values()))
    seconds = metrics.get(EPOCH_SECONDS, 0.0)
    spent = history.seconds + (seconds if math.isfinite(seconds) else 0.0)
    value = metrics[rules.metric]
    higher = finite and (history.best is None or value > history.best)
    improved = finite and (history.reference is None or value > history.reference + rules.min_delta)
    return History(
        epochs=epochs,
        best=value if higher else history.best,
        best_epoch=epochs if higher else history.best_epoch,
        reference=value if improved else history.reference,
        stale=0 if improved else history.stale + 1,
        diverged=history.diverged or not finite,
        gap_epochs=history.gap_epochs + 1 if finite and _too_far(rules, metrics) else 0,
        seconds=spent,
    )


def _too_far(rules: StopRules, metrics: Mapping[str, float]) -> bool:
    train = metrics.get(TRAIN_ACCURACY)
    if rules.overfit_gap is None or train is None:
        return False
    return train - metrics[rules.metric] > rules.overfit_gap


def judge(history: History, rules: StopRules) -> Verdict:
    """Whether to go on. A target that was reached outweighs everything but divergence."""
    if history.diverged:
        return Verdict.DIVERGED
    if rules.target is not None and history.best is not None and history.best >= rules.target:
        return Verdict.TARGET
    if history.epochs >= rules.max_epochs:
        return Verdict.MAX_EPOCHS
    if rules.overfit_gap is not None and history.gap_epochs >= rules.overfit_epochs:
        return Verdict.OVERFIT
    if history.stale >= rules.patience:
        return Verdict.PATIENCE
    if seconds_left(history, rules) <= 0:
        return Verdict.TIME
    return Verdict.CONTINUE


def seconds_left(history: History, rules: StopRules) -> float:
    """What ``max_hours`` leaves of training; infinite without it. An epoch is not cut short."""
    if rules.max_hours is None:
        return math.inf
    return rules.max_hours * SECONDS_PER_HOUR - history.seconds


def checkpoint_due(history: History, rules: StopRules, every: int) -> bool:
    """Whether the newest epoch leaves a checkpoint: a new best and the last always do."""
    if history.epochs % every == 0 or history.best_epoch == history.epochs:
        return True
    return judge(history, rules) is not Verdict.CONTINUE


def target_missed(history: History, rules: StopRules) -> bool:
    """Whether a job that ended with this history fails for its target."""
    if not rules.require_target or rules.target is None:
        return False
    return history.best is None or history.best < rules.target
