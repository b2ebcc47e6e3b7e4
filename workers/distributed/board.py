"""How all workers do at this moment, put together from what each says: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from schemas.job import Live
from workers.training.steps import Step

STALE = 15.0
"""Seconds after which a worker that says nothing is not counted any more."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """A worker's process. cpu_percent: 100 per core. rss_mb, gpu_mem_mb: MiB.

    cpu_seconds: used since it began. gpu_percent, gpu_mem_mb: of its GPU; None without one.
    """

    cpu_percent: float
    rss_mb: float
    cpu_seconds: float
    gpu_percent: float | None = None
    gpu_mem_mb: float | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """What is known. step: the newest, of ``trial``. vitals: with their time, by worker."""

    trial: int = 0
    step: Step | None = None
    vitals: Mapping[str, tuple[float, Vitals]] = field(default_factory=lambda: MappingProxyType({}))


def stepped(board: Board, trial: int, step: Step) -> Board:
    """Rank 0 of a trial told how its epoch goes."""
    return replace(board, trial=trial, step=step)


def told(board: Board, worker: str, vitals: Vitals, now: float) -> Board:
    """A worker told how its process does. now: seconds, monotonic."""
    return replace(board, vitals={**fresh(board, now), worker: (now, vitals)})


def fresh(board: Board, now: float) -> dict[str, tuple[float, Vitals]]:
    """The workers that spoke of late."""
    return {name: one for name, one in board.vitals.items() if now - one[0] <= STALE}


def live(board: Board, *, workers: int, now: float, at: datetime) -> Live:
    """As the API takes it. workers: that are up. now: monotonic; at: by the calendar."""
    step = board.step
    known = [vitals for _, vitals in fresh(board, now).values()]
    gpus = [one.gpu_percent for one in known if one.gpu_percent is not None]
    gpu_mem = [one.gpu_mem_mb for one in known if one.gpu_mem_mb is not None]
    return Live(
        at=at,
        trial=board.trial,
        epoch=step.epoch if step else None,
        done=step.done if step else 0,
        total=step.total if step else 0,
        loss=step.loss if step else None,
        samples_per_s=step.samples_per_s if step else None,
        eta_seconds=step.eta_seconds if step else None,
        workers=workers,
        cpu_percent=sum(one.cpu_percent for one in known) if known else None,
        rss_mb=max(one.rss_mb for one in known) if known else None,
        gpu_percent=sum(gpus) / len(gpus) if gpus else None,
        gpu_mem_mb=max(gpu_mem) if gpu_mem else None,
    )
