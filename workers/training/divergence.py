"""What to say of a batch that made the loss or the gradients something else than numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_NAMED = 8


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """A batch as the split gives it, before augmentation.

    nan, inf: values of its inputs. low, high: of the finite ones; None without any. broken:
    rows with a value that is not finite. classes: that occur, ascending.
    """

    rows: int
    nan: int
    inf: int
    low: float | None
    high: float | None
    broken: tuple[int, ...]
    classes: tuple[int, ...]


def facts_of(x: Tensor, y: Tensor) -> BatchFacts:
    """Look at a batch: inputs (n, …) and classes (n,)."""
    classes = tuple(torch.unique(y).tolist())
    if not x.is_floating_point():
        low, high = (float(x.min()), float(x.max())) if x.numel() else (None, None)
        return BatchFacts(len(x), 0, 0, low, high, (), classes)
    finite = torch.isfinite(x)
    good = x[finite]
    ends = (float(good.min()), float(good.max())) if good.numel() else (None, None)
    broken = (~finite).flatten(1).any(1) if x.ndim > 1 else ~finite
    return BatchFacts(
        rows=len(x),
        nan=int(torch.isnan(x).sum()),
        inf=int(torch.isinf(x).sum()),
        low=ends[0],
        high=ends[1],
        broken=tuple(torch.nonzero(broken).flatten().tolist()),
        classes=classes,
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """Where training lost its numbers.

    what: "loss", "gradient" or "validation loss". value: that it was. batch: its number in
    the epoch, from 1. names: its samples. augmented_broken: ``augment`` makes values that
    are not finite of finite ones. shared: the gradients of all workers together were not
    finite, and this worker cannot tell whether its batch made them so.
    """

    what: str
    value: float
    rank: int
    epoch: int
    batch: int
    split: str
    names: tuple[str, ...]
    facts: BatchFacts
    last_loss: float | None
    rate: float
    augmented_broken: bool = False
    shared: bool = False


def choose(findings: Sequence[Finding | None]) -> Finding | None:
    """Of what the workers found, the one that tells most: a loss before a gradient."""
    found = [f for f in findings if f is not None]
    return min(found, key=lambda f: (f.shared, f.what == "gradient", f.batch, f.rank), default=None)


def sentence(found: Finding) -> str:
    """One line for the job's owner: what, where, with which samples, and what to do."""
    facts = found.facts
    value = "nan" if math.isnan(found.value) else "infinite"
    last = "none" if found.last_loss is None else f"{found.last_loss:.4g}"
    batch = "one of its newest batches has" if found.shared else "its batch has"
    return (
        f"the {found.what} was {value} in epoch {found.epoch}, batch {found.batch}, on worker "
        f"{found.rank}: {batch} the {found.split} samples {_listed(found.names)}; "
        f"{_inputs(found)}; classes {_listed([str(c) for c in facts.classes])}; "
        f"last finite loss {last}, learning rate {found.rate:.3g}; {_advice(found)}"
    )


def _inputs(found: Finding) -> str:
    facts = found.facts
    span = "" if facts.low is None else f", range {facts.low:.4g}..{facts.high:.4g}"
    if not facts.broken:
        return f"its inputs are finite{span}"
    names = _listed([found.names[row] for row in facts.broken])
    return f"its inputs hold {facts.nan} NaN and {facts.inf} infinite values, in {names}{span}"


def _advice(found: Finding) -> str:
    if found.facts.broken:
        return "repair or remove these samples"
    if found.augmented_broken:
        return "the task's augment makes NaN or infinite values of them: correct it"
    if found.what == "validation loss":
        return "look at these samples and at Task.loss, or lower the learning rate"
    return "lower the learning rate, set training.clip_norm, or look at Task.loss"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} … ({len(names)} in all)"
