"""What the timed task noted, read back: when a training began, and how fast it went."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SETTLING = 1
"""Epochs at the start that are not measured: caches and allocators fill."""


@dataclass(frozen=True, slots=True)
class Moment:
    """at: seconds since 1970. cpu: seconds of CPU time that the process had used."""

    at: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Marks:
    """Of one worker. begun: its first batch. epochs: first and last batch of each, begun."""

    begun: float
    epochs: tuple[tuple[Moment, Moment], ...]


def parse(text: str) -> Marks:
    """Read one worker's notes; a line that is still being written is left out.

    Raises:
        ValueError: it noted no step.
    """
    begun: float | None = None
    epochs: list[tuple[Moment, Moment]] = []
    for line in text.splitlines(keepends=True):
        kind, *numbers = line.split()
        if not line.endswith("\n"):
            break
        if kind == "begin":
            begun = float(numbers[0])
        else:
            at, cpu, last_at, last_cpu = map(float, numbers)
            epochs.append((Moment(at, cpu), Moment(last_at, last_cpu)))
    if begun is None:
        msg = "the worker noted no step"
        raise ValueError(msg)
    return Marks(begun, tuple(epochs))


def read(marks: Path) -> tuple[Marks, ...]:
    """All workers' notes.

    Raises:
        ValueError: there are none.
    """
    found = tuple(parse(path.read_text()) for path in sorted(marks.parent.glob(f"{marks.name}-*")))
    if not found:
        msg = f"no worker noted anything at {marks}"
        raise ValueError(msg)
    return found


def first_step(workers: tuple[Marks, ...]) -> float:
    """When the first batch of any worker began, in seconds since 1970."""
    return min(one.begun for one in workers)


def samples_per_s(workers: tuple[Marks, ...], samples: int) -> float:
    """Samples of whole epochs over their time, validation, report and checkpoint included.

    From the first batch of the epoch after the settling ones to the first of the last
    epoch; the slowest worker counts.

    Args:
        workers: what they noted.
        samples: of an epoch, of all workers together.

    Raises:
        ValueError: there were too few epochs.
    """
    rates = []
    for one in workers:
        whole = len(one.epochs) - 1 - SETTLING
        if whole < 1:
            msg = f"{len(one.epochs)} epochs are too few to measure"
            raise ValueError(msg)
        seconds = one.epochs[-1][0].at - one.epochs[SETTLING][0].at
        rates.append(whole * samples / seconds)
    return min(rates)


def step_us(one: Marks, steps: int) -> tuple[float, float]:
    """Microseconds from batch to batch within an epoch of so many steps, and of CPU time.

    Each of the epoch that was disturbed least.
    """
    measured = one.epochs[SETTLING:] or one.epochs
    wall = min(last.at - first.at for first, last in measured)
    cpu = min(last.cpu - first.cpu for first, last in measured)
    return 1e6 * wall / (steps - 1), 1e6 * cpu / (steps - 1)
