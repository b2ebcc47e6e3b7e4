"""Timing several models in turn, so that a busy moment of the machine falls on all of them.

Block by block, and each round in the opposite order of the one before: neither what runs
first nor what runs last gains by it. Ranked by the CPU time of the thread, which other
processes disturb less than the wall clock (DESIGN: by wall clock, noise chose the variant).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

ROUNDS = 16
BLOCK = 25
WARM_UP = 20
WARM_UP_SECONDS = 0.5
BLOCK_SECONDS = 0.15
FEWEST_ROUNDS = 4
MAX_SECONDS = 30.0
"""Of timing one model with one batch size; further rounds are left out, for all alike."""

Run = Callable[[int], object]
"""The i-th inference."""


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a model could not be measured, on one line."""

    reason: str


@dataclass(slots=True)
class Times:
    """Nanoseconds of the counted runs. warm_up: runs that were not counted."""

    wall: list[int] = field(default_factory=list)
    cpu: list[int] = field(default_factory=list)
    warm_up: int = 0
    block: int = BLOCK

    def run(self, run: Run, first: int, count: int) -> None:
        """Time ``count`` runs, each by itself, after one that fills the caches again."""
        run(first)
        self.warm_up += 1
        for i in range(first, first + count):
            cpu_before, before = time.thread_time_ns(), time.perf_counter_ns()
            run(i)
            after, cpu_after = time.perf_counter_ns(), time.thread_time_ns()
            self.wall.append(after - before)
            self.cpu.append(cpu_after - cpu_before)


def percentiles(nanoseconds: Sequence[int]) -> tuple[float, float, float]:
    """The median, 95th and 99th percentile, in milliseconds, by linear interpolation."""
    p50, p95, p99 = (float(q) / 1e6 for q in np.percentile(nanoseconds, [50, 95, 99]))
    return p50, p95, p99


def median_ms(nanoseconds: Sequence[int]) -> float:
    """The median, in milliseconds."""
    return float(np.median(nanoseconds)) / 1e6


def block_size(seconds_each: float) -> int:
    """Runs per block: ``BLOCK``, fewer of a slow model, at least one."""
    return max(1, min(BLOCK, int(BLOCK_SECONDS / max(seconds_each, 1e-9))))


def alternate(
    runs: Mapping[str, Run], *, rounds: int = ROUNDS, max_seconds: float = MAX_SECONDS
) -> dict[str, Times | Failure]:
    """Time models in turn.

    Args:
        runs: how to run each.
        rounds: blocks of each, unless ``max_seconds`` per model are over earlier.
        max_seconds: see above.

    Returns:
        Times by name, all of the same number of blocks; a failure where a run raised.
    """
    found: dict[str, Times | Failure] = {}
    with _no_collection():
        for name, run in runs.items():
            found[name] = attempt(partial(_warm_up, run))
        began = time.monotonic()
        for turn in range(rounds):
            late = time.monotonic() - began > max_seconds * len(runs)
            if late and turn >= min(FEWEST_ROUNDS, rounds):
                break
            _round(runs, found, turn)
    return found


def attempt(work: Callable[[], _T]) -> _T | Failure:
    """The result, or the failure that an exception of it means."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - a model can make the runtime raise anything
        first = (str(error).strip().splitlines() or ["no message"])[0][:300]
        return Failure(f"it does not run: {type(error).__name__}: {first}")


def _round(runs: Mapping[str, Run], found: dict[str, Times | Failure], turn: int) -> None:
    names = list(runs) if turn % 2 == 0 else list(runs)[::-1]
    for name in names:
        times = found[name]
        if isinstance(times, Failure):
            continue
        failed = attempt(partial(times.run, runs[name], turn * times.block, times.block))
        if isinstance(failed, Failure):
            found[name] = failed


def _warm_up(run: Run) -> Times:
    times = Times()
    began = time.perf_counter()
    last = began
    while times.warm_up < WARM_UP and (times.warm_up == 0 or last - began < WARM_UP_SECONDS):
        before = last
        run(times.warm_up)
        times.warm_up += 1
        last = time.perf_counter()
        times.block = block_size(last - before)
    return times


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of what is timed."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
