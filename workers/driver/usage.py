"""What a job takes of the cluster, added up: pure, over events with their times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from schemas.job import Usage


@dataclass(frozen=True, slots=True)
class Group:
    """Workers that run together. cpus, gpus: reserved by all of them. since: in seconds."""

    workers: int
    cpus: float
    gpus: float
    since: float


@dataclass(frozen=True, slots=True)
class Meter:
    """The sums so far. Times are seconds of one clock.

    groups: that are up, by trial (0 where there is no sweep). used: the CPU seconds that
    each worker's process has used, by its own name, which no later process has.
    up_since: when the first of the groups that are up came up.
    """

    groups: Mapping[int, Group] = field(default_factory=lambda: MappingProxyType({}))
    used: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    up_since: float | None = None

    @property
    def workers(self) -> int:
        """How many are up."""
        return sum(group.workers for group in self.groups.values())


def up(meter: Meter, trial: int, *, workers: int, cpus: float, gpus: float, now: float) -> Meter:
    """A group came up; one of the same trial that was up before is gone. cpus, gpus: of all."""
    before = down(meter, trial, now)
    groups = {**before.groups, trial: Group(workers, cpus, gpus, now)}
    since = now if before.up_since is None else before.up_since
    return replace(before, groups=groups, up_since=since)


def down(meter: Meter, trial: int, now: float) -> Meter:
    """A group went; nothing happens if it was not up."""
    group = meter.groups.get(trial)
    if group is None:
        return meter
    seconds = max(0.0, now - group.since)
    groups = {key: one for key, one in meter.groups.items() if key != trial}
    wall, since = meter.wall_seconds, meter.up_since
    if not groups and since is not None:
        wall, since = wall + max(0.0, now - since), None
    return replace(
        meter,
        groups=groups,
        wall_seconds=wall,
        cpu_seconds=meter.cpu_seconds + group.cpus * seconds,
        gpu_seconds=meter.gpu_seconds + group.gpus * seconds,
        up_since=since,
    )


def used(meter: Meter, process: str, seconds: float) -> Meter:
    """A process says how much CPU time it has used since it began; it never shrinks."""
    most = max(seconds, meter.used.get(process, 0.0))
    return replace(meter, used={**meter.used, process: most})


def total(meter: Meter, now: float) -> Usage:
    """The sums up to now, with what the groups that are up have taken so far."""
    for trial in tuple(meter.groups):
        meter = down(meter, trial, now)
    return Usage(
        wall_seconds=meter.wall_seconds,
        cpu_seconds=meter.cpu_seconds,
        gpu_seconds=meter.gpu_seconds,
        cpu_used_seconds=sum(meter.used.values()),
    )
