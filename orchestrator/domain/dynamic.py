"""Dynamic rollouts: which wave a device joins that came to match after the plan was frozen."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from schemas.rollout import RolloutSpec, WaveState
from schemas.selector import parse, write

MAX_WAVES = 200
"""Waves of a rollout; beyond that those of joiners that passed are put together, and likewise those
of stragglers, so that a rollout has at most one more of each kind."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A wave, as far as joining depends on it."""

    index: int
    state: WaveState
    stragglers: bool = False
    joiners: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """The wave that devices join. new: it is to be made.

    folds: another wave of its kind, to which those of the new one's index go first: both passed.
    """

    index: int
    new: bool = False
    folds: int | None = None


def place(waves: Collection[Standing]) -> Place:
    """The last wave that has not begun, or a new one behind all others.

    Nobody else moves: devices that are in a wave stay in it.
    """
    pending = [w.index for w in waves if w.state is WaveState.PENDING and not w.stragglers]
    if pending:
        return Place(max(pending))
    return _fresh(waves, [w for w in waves if w.joiners])


def late_place(waves: Collection[Standing]) -> Place:
    """The stragglers' wave that is not over, or a new one."""
    late = absent(waves)
    if late is not None:
        return Place(late)
    return _fresh(waves, [w for w in waves if w.stragglers])


def _fresh(waves: Collection[Standing], alike: Collection[Standing]) -> Place:
    """A new wave: behind all others, or in the place of one of its kind that is put to another."""
    passed = sorted(w.index for w in alike if w.state is WaveState.PASSED)
    if len(waves) >= MAX_WAVES and len(passed) > 1:
        return Place(passed[-1], new=True, folds=passed[-2])
    return Place(max((w.index for w in waves), default=-1) + 1, new=True)


def absent(waves: Collection[Standing]) -> int | None:
    """The stragglers' wave that is not over; None where there is none."""
    open_ = (w.index for w in waves if w.stragglers and w.state is not WaveState.PASSED)
    return next(open_, None)


def takes_place(newer: RolloutSpec, older: RolloutSpec) -> bool:
    """Whether a dynamic rollout that starts replaces an older one: same model, same target."""
    return (
        newer.dynamic
        and older.dynamic
        and newer.model == older.model
        and _target(newer) == _target(older)
    )


def _target(spec: RolloutSpec) -> tuple[object, ...]:
    selectors = (None if t is None else write(parse(t)) for t in (spec.where, spec.exclude))
    return spec.device_class, frozenset(spec.tags), spec.fleet, *selectors
