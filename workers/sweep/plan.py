"""What a sweep is to try: parameters by trial, and the job that each trial is. No IO.

Trials are numbered from 1 in the order of the plan, which follows from the spec alone, so
that another attempt gives each trial the number that it had.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from pydantic import ValidationError

from schemas.jobfile import JobSpec
from schemas.lineage import Choice
from schemas.sweep import Span, Sweep
from schemas.workers import WorkerRange
from workers.errors import UsageError

Parameters = dict[str, Choice]

_REDRAWS = 50
"""Draws in a row that only repeat what is there already, after which a random plan ends."""

_DIGITS = 6
"""Significant digits of a drawn number, so that people can read and repeat it."""


def plan(spec: JobSpec) -> tuple[Parameters, ...]:
    """The parameters of every trial, in order; no two are equal.

    A grid's last key varies fastest. Random trials are drawn with ``spec.seed``; where the
    space has fewer points than ``trials``, there are fewer trials.

    Raises:
        UsageError: the spec has no sweep, or a trial of it would be no valid job.
    """
    sweep = sweep_of(spec)
    if sweep.method == "asha" and sweep.grace_epochs > spec.stop.max_epochs:
        msg = (
            f"sweep.grace_epochs is {sweep.grace_epochs}, "
            f"but no trial trains for more than {spec.stop.max_epochs} epochs"
        )
        raise UsageError(msg, "lower it, or raise stop.max_epochs")
    for key, values in sweep.space.items():
        if isinstance(values, Span) and values.whole and not _wholes(values):
            msg = f"sweep.space {key}: no whole number lies in {values.min:g}..{values.max:g}"
            raise UsageError(msg, "widen the span, or leave whole out")
    found = tuple(_grid(sweep) if sweep.method == "grid" else _drawn(sweep, spec.seed))
    for parameters in found:
        apply(spec, parameters)
    return found


def sweep_of(spec: JobSpec) -> Sweep:
    """The spec's sweep.

    Raises:
        UsageError: it has none.
    """
    if spec.sweep is None:
        msg = "the job has no sweep"
        raise UsageError(msg, "add one, as in `sweep: {config.lr: [0.01, 0.001]}`")
    return spec.sweep


def apply(spec: JobSpec, parameters: Mapping[str, Choice]) -> JobSpec:
    """The job of one trial: the parameters in their places, no sweep, and checked anew.

    Raises:
        UsageError: a key leads nowhere, or its value is refused there; names the key.
    """
    document: dict[str, Any] = {**spec.model_dump(mode="json"), "sweep": None}
    for key, value in parameters.items():
        _put(document, key, value)
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        key = _responsible(parameters, where)
        msg = f"sweep.space {key}: {parameters.get(key)!r} is refused: {first['msg']} ({where})"
        raise UsageError(msg, "see the job file's settings for what it may be") from error


def _put(document: dict[str, Any], key: str, value: Choice) -> None:
    """Set a value by its dotted key. Below ``config``, what is not there is made."""
    *path, last = key.split(".")
    place = document
    for depth, name in enumerate(path, start=1):
        below = place.setdefault(name, {}) if path[0] == "config" else place.get(name)
        if not isinstance(below, dict):
            msg = f"sweep.space {key}: {'.'.join(path[:depth])} holds no settings"
            raise UsageError(msg, "name a key that the job file knows")
        place = below
    place[last] = value


def _responsible(parameters: Mapping[str, Choice], where: str) -> str:
    """Which key put something wrong at ``where``: the longest that leads there."""
    leading = [k for k in parameters if f"{where}.".startswith(f"{k}.")]
    return max(leading, key=len) if leading else ", ".join(parameters)


def _grid(sweep: Sweep) -> Iterator[Parameters]:
    seen: set[str] = set()
    choices = [values for values in sweep.space.values() if not isinstance(values, Span)]
    for combination in itertools.product(*choices):
        parameters = dict(zip(sweep.space, combination, strict=True))
        if _is_new(parameters, seen):
            yield parameters


def _drawn(sweep: Sweep, seed: int) -> Iterator[Parameters]:
    """Draw from the whole space; a random number generator per key and draw.

    So a key's values stay the same when another key is added to the space.
    """
    seen: set[str] = set()
    repeats = 0
    for index in itertools.count():
        parameters = {
            key: _draw(values, Random(f"{seed}/{key}/{index}"))  # noqa: S311 - no secret
            for key, values in sweep.space.items()
        }
        repeats = 0 if _is_new(parameters, seen) else repeats + 1
        if repeats == 0:
            yield parameters
        if len(seen) == sweep.trials or repeats > _REDRAWS:
            return


def _is_new(parameters: Parameters, seen: set[str]) -> bool:
    # As JSON, in which 1, 1.0 and true differ.
    text = json.dumps(parameters)
    if text in seen:
        return False
    seen.add(text)
    return True


def _draw(values: Sequence[Choice] | Span, rng: Random) -> Choice:
    if not isinstance(values, Span):
        return values[rng.randrange(len(values))]
    return draw_span(values, rng.random())


def draw_span(span: Span, u: float) -> int | float:
    """The point of a span at ``u`` (0 ≤ u < 1), even over it or over its logarithm."""
    if span.whole:
        whole = _wholes(span)
        low, high = whole[0], whole[-1]
        if not span.log:
            return low + int(u * len(whole))
        # Half a number more on either side, so that both ends get their share.
        drawn = round(_between(math.log(low - 0.5), math.log(high + 0.5), u, log=True))
        return min(high, max(low, drawn))
    if span.log:
        value = _between(math.log(span.min), math.log(span.max), u, log=True)
    else:
        value = _between(span.min, span.max, u, log=False)
    return min(span.max, max(span.min, float(f"{value:.{_DIGITS}g}")))


def _wholes(span: Span) -> range:
    return range(math.ceil(span.min), math.floor(span.max) + 1)


def _between(low: float, high: float, u: float, *, log: bool) -> float:
    value = low + u * (high - low)
    return math.exp(value) if log else value


def milestones(spec: JobSpec) -> tuple[int, ...]:
    """The epochs after which ASHA compares: its rungs, ascending; none for other methods."""
    sweep = sweep_of(spec)
    if sweep.method != "asha":
        return ()
    found = []
    epoch = sweep.grace_epochs
    while epoch <= spec.stop.max_epochs:
        found.append(epoch)
        epoch *= sweep.reduction
    return tuple(found)


def at_once(
    spec: JobSpec, each: Mapping[str, float], cluster: Mapping[str, float]
) -> tuple[int, WorkerRange]:
    """How many trials run side by side, and with how many workers each.

    A trial that the cluster has no room for beside the others would only wait, and its
    time of waiting counts against ``resources.wait_minutes``.

    Args:
        spec: the job.
        each: what one worker reserves, by resource.
        cluster: what there is in all.
    """
    wanted = spec.resources.workers
    room = min((int(cluster.get(r, 0.0) / n + 1e-9) for r, n in each.items() if n > 0), default=0)
    trials = max(1, min(sweep_of(spec).parallel, room // wanted.min))
    most = wanted.max if trials == 1 else min(wanted.max, max(wanted.min, room // trials))
    return trials, WorkerRange(min=wanted.min, max=most)
