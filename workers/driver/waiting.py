"""Waiting for a cluster's resources, in words and with an end: pure, but for one reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from schemas.jobfile import Resources
from workers.memory import GIB

GRACE = 4.0
"""Seconds without workers before it is worth telling."""

AGAIN = 10.0
"""Seconds until what is free is told anew."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a cluster has and what of it is free, by Ray's names; memory in bytes."""

    total: Mapping[str, float]
    free: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Wait:
    """Where the waiting stands. since: there are no workers; told_at: it was last told."""

    since: float | None = None
    told_at: float | None = None


class Tell(StrEnum):
    """What to do about it."""

    NOTHING = "nothing"
    SAY = "say"
    CLEAR = "clear"
    FAIL = "fail"


def look(wait: Wait, *, up: bool, stuck: bool, now: float, limit: float) -> tuple[Wait, Tell]:
    """What follows from a look.

    Args:
        wait: the state.
        up: workers are there.
        stuck: what was asked for is not given.
        now: seconds, monotonic.
        limit: seconds to wait at most.
    """
    if up:
        return Wait(), Tell.CLEAR if wait.told_at is not None else Tell.NOTHING
    if wait.since is None:
        return replace(wait, since=now), Tell.NOTHING
    waited = now - wait.since
    if not stuck:
        # Placed, and starting: what is said of waiting is not true any more.
        if wait.told_at is not None:
            return Wait(since=now), Tell.CLEAR
        return wait, Tell.NOTHING
    if waited >= limit and wait.told_at is not None:
        return wait, Tell.FAIL  # never before it was told what is waited for
    due = wait.told_at is None or now - wait.told_at >= AGAIN
    if waited >= GRACE and due:
        return replace(wait, told_at=now), Tell.SAY
    return wait, Tell.NOTHING


def sentence(asked: Resources, offer: Offer) -> str:
    """What is asked for and what there is.

    As in: asks for 4 workers of 1 CPU and 1 GPU; the cluster has 4 CPUs and 0 GPUs, of
    which 2 CPUs are free.
    """
    each = [_count(asked.cpus_per_worker, "CPU")]
    kinds = ["CPU"]
    if asked.gpus_per_worker:
        each.append(_count(asked.gpus_per_worker, "GPU"))
        kinds.append("GPU")
    if asked.memory_gb is not None:
        each.append(f"{asked.memory_gb:g} GiB")
        kinds.append("memory")
    workers = asked.workers
    many = f"{workers} worker{'s' if workers.max > 1 else ''}"
    has = _list([_amount(offer.total, kind) for kind in kinds])
    free = [_amount(offer.free, kind) for kind in kinds if offer.total.get(kind, 0) > 0]
    sums = f"; the cluster has {has}"
    return f"asks for {many} of {_list(each)}{sums}" + (
        f", of which {_list(free)} {'is' if free == ['1 CPU'] else 'are'} free" if free else ""
    )


def lacks(asked: Resources, total: Mapping[str, float]) -> bool:
    """Whether the whole cluster is too small for the least number of workers."""
    n = asked.workers.min
    wanted = {"CPU": asked.cpus_per_worker * n, "GPU": float(asked.gpus_per_worker * n)}
    if asked.memory_gb is not None:
        wanted["memory"] = asked.memory_gb * n * GIB
    return any(amount > total.get(kind, 0.0) for kind, amount in wanted.items())


def unplaced(table: Mapping[str, Mapping[str, Any]], job: str) -> bool:
    """Whether a placement group of a Ray job waits; its id ends with the job's."""
    return any(
        group["state"] in {"PENDING", "RESCHEDULING"} and name.endswith(job)
        for name, group in table.items()
    )


def _amount(resources: Mapping[str, float], kind: str) -> str:
    value = resources.get(kind, 0.0)
    return f"{value / GIB:.1f} GiB" if kind == "memory" else _count(value, kind)


def _count(value: float, kind: str) -> str:
    return f"{value:g} {kind}{'' if value == 1 else 's'}"


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
