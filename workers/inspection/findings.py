"""What is wrong with a data set, in sentences for the person who gave it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from schemas.dataset import Overlap, Split, SplitProfile
from schemas.jobfile import Dataset
from schemas.signature import TensorSpec

MAX_RATIO = 20
"""Of the largest class of the training split to the smallest, above which it is told."""

MAX_PROBLEMS = 50
_MAX_TEXT = 500
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Look:
    """What was found in one split, with an example of each fault: the index of a sample.

    duplicate, conflict: an index and that of the earlier, equal sample.
    """

    profile: SplitProfile
    not_finite: int | None = None
    out_of_range: int | None = None
    duplicate: tuple[int, int] | None = None
    conflict: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Shared:
    """Samples of a split that are also in another one.

    conflicts: those with another class there. example: an index in each of the two.
    """

    overlap: Overlap
    conflicts: int
    example: tuple[int, int]


class Weight(IntEnum):
    """How much a fault matters; the largest is told first."""

    DUPLICATES = 1
    IMBALANCE = 2
    RANGE = 3
    UNMEASURED = 4
    CONFLICT = 5
    NOT_FINITE = 6
    LEAKAGE = 7
    UNLEARNABLE = 8


@dataclass(frozen=True, slots=True)
class _Problem:
    weight: Weight
    share: float
    text: str


def problems_of(
    looks: Sequence[Look],
    shared: Sequence[Shared],
    labels: Sequence[str],
    classes: Mapping[Split, Mapping[int, int]],
    spec: TensorSpec,
    dataset: Dataset,
) -> tuple[str, ...]:
    """What is wrong, the worst first; empty if nothing is.

    Args:
        looks: at each split.
        shared: samples between the splits.
        labels: of the classes, by number.
        classes: samples by class, all of them, by split.
        spec: the task's input.
        dataset: its ``max_overlap`` is tolerated.
    """
    found = [p for look in looks for p in (*_missing(look, labels, classes), *_values(look, spec))]
    found += _imbalance(classes["train"], labels)
    found += [_leak(one) for one in shared if one.overlap.share > dataset.max_overlap]
    found.sort(key=lambda p: (-p.weight, -p.share))
    return tuple(p.text[:_MAX_TEXT] for p in found[:MAX_PROBLEMS])


def _missing(
    look: Look, labels: Sequence[str], classes: Mapping[Split, Mapping[int, int]]
) -> Iterator[_Problem]:
    split = look.profile.split
    missing = [label for i, label in enumerate(labels) if i not in classes[split]]
    if not missing:
        return
    names = ", ".join(repr(label[:40]) for label in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
    what = f"{split} has no sample of {len(missing):,} of {len(labels):,} classes ({names}{more})"
    share = len(missing) / len(labels)
    if split == "train":
        yield _Problem(Weight.UNLEARNABLE, share, f"{what}: they cannot be learnt")
    else:
        yield _Problem(Weight.UNMEASURED, share, f"{what}: its accuracy says nothing of them")


def _values(look: Look, spec: TensorSpec) -> Iterator[_Problem]:
    split, n = look.profile.split, look.profile.n

    def some(count: int) -> str:
        return _of(count, n, split)

    if look.not_finite is not None:
        count = look.profile.not_finite
        text = f"{some(count)} hold NaN or an infinity, as sample {look.not_finite} does"
        yield _Problem(Weight.NOT_FINITE, count / n, text)
    if look.out_of_range is not None and spec.range is not None:
        count = look.profile.out_of_range
        text = (
            f"{some(count)} are outside of {spec.range[0]:g}..{spec.range[1]:g}, the range that "
            f"input_spec says, as sample {look.out_of_range} is"
        )
        yield _Problem(Weight.RANGE, count / n, text)
    if look.conflict is not None:
        count = look.profile.conflicts
        text = (
            f"{some(count)} equal an earlier one of another class, as sample "
            f"{look.conflict[0]} equals {look.conflict[1]}: one of the two labels is wrong"
        )
        yield _Problem(Weight.CONFLICT, count / n, text)
    if look.duplicate is not None:
        count = look.profile.duplicates
        text = (
            f"{some(count)} equal an earlier one, as sample {look.duplicate[0]} equals "
            f"{look.duplicate[1]}"
        )
        yield _Problem(Weight.DUPLICATES, count / n, text)


def _imbalance(train: Mapping[int, int], labels: Sequence[str]) -> Iterator[_Problem]:
    most = max(train, key=lambda label: train[label])
    least = min(train, key=lambda label: train[label])
    ratio = train[most] / train[least]
    if ratio > MAX_RATIO:
        text = (
            f"class {labels[most][:40]!r} has {ratio:.0f} times the training samples of "
            f"{labels[least][:40]!r} ({train[most]:,} against {train[least]:,}): "
            "training.class_weights: balanced weighs them"
        )
        yield _Problem(Weight.IMBALANCE, ratio, text)


def _leak(one: Shared) -> _Problem:
    """A sentence on samples that two splits share; n and share are of the smaller side."""
    split, other = one.overlap.split, one.overlap.other
    total = round(one.overlap.n / one.overlap.share)
    contrary = f", {one.conflicts:,} of them with another class there" if one.conflicts else ""
    text = (
        f"{_of(one.overlap.n, total, split)} are also in {other}{contrary}, as sample "
        f"{one.example[0]} is {one.example[1]} of {other}: accuracy on them says nothing"
    )
    return _Problem(Weight.LEAKAGE, one.overlap.share, text)


def _of(count: int, total: int, split: Split) -> str:
    """``41 of 355 validation samples (11.5 %)``."""
    return f"{count:,} of {total:,} {split} samples ({100 * count / total:.3g} %)"
