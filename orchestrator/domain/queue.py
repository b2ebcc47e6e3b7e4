"""Which queued job is next, and why one waits.

The order is priority, which grows with waiting, then fair shares between projects, then
age. Fair shares are those of a greedy scheduler: a job that is placed counts at once as
one that its project runs, so two projects alternate however many jobs either has queued.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heappop, heapreplace

from schemas.job import Capacity, JobCause
from schemas.jobfile import Resources

AGING = timedelta(hours=1)
"""A job that waited for so long is worth one more of priority; so nothing waits forever."""

SEEN = timedelta(seconds=60)
"""An agent that has not been heard of for longer is not counted on."""

_REASON = 200


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued job. ``since``: when it was submitted."""

    id: str
    project: str
    priority: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Running:
    """A job that an agent holds."""

    id: str
    project: str


@dataclass(frozen=True, slots=True)
class Failure:
    """How the attempt before ended, and when the next may start."""

    attempt: int
    cause: JobCause | None
    detail: str | None
    again: datetime


@dataclass(frozen=True, slots=True)
class Offer:
    """An agent: what its cluster has, and when it was last heard of."""

    name: str
    capacity: Capacity | None
    seen_at: datetime


def effective_priority(job: Waiting, now: datetime) -> int:
    """Its priority, and one for each whole hour that it has waited."""
    return job.priority + max(now - job.since, timedelta()) // AGING


def order(
    waiting: Sequence[Waiting],
    running: Sequence[Running],
    recent: Mapping[str, float],
    now: datetime,
) -> tuple[str, ...]:
    """The ids of the waiting jobs, the next one first.

    Args:
        waiting: the queued jobs, in any order.
        running: the jobs that agents hold.
        recent: by project, the CPU-seconds that it used of late; none where it is missing.
        now: the time.
    """
    share = Counter(job.project for job in running)
    levels: dict[int, dict[str, deque[Waiting]]] = defaultdict(lambda: defaultdict(deque))
    for job in sorted(waiting, key=_age):
        levels[effective_priority(job, now)][job.project].append(job)
    placed: list[str] = []
    for level in sorted(levels, reverse=True):
        projects = levels[level]
        turns = [_turn(jobs, share, recent) for jobs in projects.values()]
        heapify(turns)
        while turns:
            # Placing a job moves its own project's turn alone.
            *_, project = turns[0]
            placed.append(projects[project].popleft().id)
            share[project] += 1
            if projects[project]:
                heapreplace(turns, _turn(projects[project], share, recent))
            else:
                heappop(turns)
    return tuple(placed)


def _turn(
    jobs: deque[Waiting], share: Mapping[str, int], recent: Mapping[str, float]
) -> tuple[int, float, datetime, str, str]:
    project = jobs[0].project
    return (share[project], recent.get(project, 0.0), *_age(jobs[0]), project)


def _age(job: Waiting) -> tuple[datetime, str]:
    return job.since, job.id


def fits(resources: Resources, capacity: Capacity | None) -> str | None:
    """Why a job can never run on a cluster, in a sentence; None when it can.

    The fewest workers that it can live with are what counts. A cluster that grows, or does
    not tell what it has, may hold anything; one that tells no memory, any memory.
    """
    if capacity is None or capacity.grows:
        return None
    workers = resources.workers.min
    enough = (
        workers * resources.cpus_per_worker <= capacity.cpus
        and workers * resources.gpus_per_worker <= capacity.gpus
        and (not capacity.memory_gb or workers * (resources.memory_gb or 0.0) <= capacity.memory_gb)
    )
    if enough:
        return None
    return f"it asks for {_asked(resources)}; the cluster has {_offered(resources, capacity)}"


def notice(
    resources: Resources, failure: Failure | None, offers: Sequence[Offer], now: datetime
) -> str | None:
    """What a queued job waits for, in words; None when it only waits for its turn.

    Args:
        resources: what it asks for.
        failure: of the attempt before, if there was one.
        offers: every agent that is known.
        now: the time.
    """
    if failure is not None and now < failure.again:
        why = (failure.detail or "").strip().partition("\n")[0][:_REASON]
        cause = ": ".join(part for part in (failure.cause, why) if part)
        again = f"{failure.again:%H:%M:%S}"
        return f"attempt {failure.attempt} failed ({cause}); it starts again at {again} UTC"
    lately = [offer for offer in offers if now - offer.seen_at <= SEEN]
    if not lately:
        return _nobody(offers, now)
    if any(fits(resources, offer.capacity) is None for offer in lately):
        return None
    best = max(lately, key=lambda offer: (_size(offer.capacity), offer.name))
    capacity = best.capacity or Capacity(cpus=0)
    several = f"the largest of {len(lately)} clusters" if len(lately) > 1 else "the only cluster"
    return (
        f"no cluster can hold it: it asks for {_asked(resources)}; "
        f"{several}, {best.name}, has {_offered(resources, capacity)}"
    )


def _nobody(offers: Sequence[Offer], now: datetime) -> str:
    hint = "start one with `argosy-worker agent`"
    if not offers:
        return (
            "no agent has asked for work yet; that of `argosy up` takes some seconds to start, "
            f"elsewhere {hint}"
        )
    last = max(offers, key=lambda offer: offer.seen_at)
    silent = _duration(now - last.seen_at)
    return f"no agent has asked for work for {silent} (the last was {last.name}); {hint}"


def _size(capacity: Capacity | None) -> tuple[float, float, float]:
    if capacity is None:
        return 0.0, 0.0, 0.0
    return capacity.gpus, capacity.cpus, capacity.memory_gb


def _asked(resources: Resources) -> str:
    workers = resources.workers.min
    least = "at least " if resources.workers.elastic else ""
    each = _list(
        resources.cpus_per_worker,
        resources.gpus_per_worker or None,
        resources.memory_gb,
    )
    return f"{least}{workers} worker{'s' * (workers != 1)} of {each} each"


def _offered(resources: Resources, capacity: Capacity) -> str:
    gpus = capacity.gpus if resources.gpus_per_worker or capacity.gpus else None
    memory = capacity.memory_gb if resources.memory_gb and capacity.memory_gb else None
    return _list(capacity.cpus, gpus, memory)


def _list(cpus: float, gpus: float | None, memory_gb: float | None) -> str:
    parts = [f"{cpus:g} CPU{'s' * (cpus != 1)}"]
    if gpus is not None:
        parts.append(f"{gpus:g} GPU{'s' * (gpus != 1)}" if gpus else "no GPU")
    if memory_gb is not None:
        parts.append(f"{memory_gb:g} GiB")
    return ", ".join(parts)


def _duration(time: timedelta) -> str:
    seconds = int(time.total_seconds())
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' * (count != 1)}"
    return f"{seconds} second{'s' * (seconds != 1)}"
