"""Following a job that was claimed: one pure step per look at its driver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from schemas.job import HeartbeatReply, JobCause
from workers.order import NO_ENVIRONMENT

STOP_GRACE = 4.0
"""Seconds between asking Ray to stop a job and killing what is left of it; then both again."""

AWAY_SECONDS = 300.0
"""For so long the lease of a job is kept while its cluster does not answer."""

MAX_BEAT = 3.0
"""Longest pause between heartbeats: a cancel is noticed with the next one."""


class DriverState(StrEnum):
    """What Ray says of a driver."""

    ACTIVE = "active"
    ENDED = "ended"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a driver. exit_code: None when it was killed. last_line: of its log.

    cause: known where the agent itself could not start it.
    """

    state: DriverState
    exit_code: int | None = None
    last_line: str = ""
    cause: JobCause | None = None


@dataclass(frozen=True, slots=True)
class Followed:
    """What the agent knows of a job it claimed. Times are of a monotonic clock.

    cancel: the orchestrator wants it stopped. lost: another attempt holds it.
    asked_last: a heartbeat was sent after the driver's end, to learn of a cancel, or, by
    its refusal, that the driver has said its last word: the user's code can end it too, with
    any exit code.
    away_since: the cluster does not answer.
    """

    lease_seconds: float
    beat_due: float = 0.0
    cancel: bool = False
    lost: bool = False
    stop_asked: float | None = None
    asked_last: bool = False
    away_since: float | None = None


class Do(StrEnum):
    """What to do about it.

    KILL: end all processes of the job. SAY: report the outcome. FORGET: stop following.
    """

    BEAT = "beat"
    STOP = "stop"
    KILL = "kill"
    SAY = "say"
    FORGET = "forget"


def step(job: Followed, seen: Seen, now: float) -> tuple[Followed, tuple[Do, ...]]:
    """What follows from a look at the driver."""
    job = replace(job, away_since=None)
    if seen.state is DriverState.ACTIVE:
        return _running(job, now)
    if job.lost:
        return job, (Do.KILL, Do.FORGET)
    if not job.cancel and not job.asked_last:
        return replace(job, asked_last=True), (Do.KILL, Do.BEAT)
    return job, (Do.KILL, Do.SAY, Do.FORGET)


def waiting(job: Followed, now: float) -> tuple[Followed, tuple[Do, ...]]:
    """A claim whose driver may not start yet: its lease is kept meanwhile."""
    if now < job.beat_due or job.cancel or job.lost:
        return job, ()
    return replace(job, beat_due=_next_beat(job, now)), (Do.BEAT,)


def unseen(job: Followed, now: float) -> tuple[Followed, tuple[Do, ...]]:
    """The cluster does not answer: a stop kills what is here, else the lease is kept a while.

    Past that another agent may have a cluster that answers.
    """
    since = now if job.away_since is None else job.away_since
    job = replace(job, away_since=since)
    if job.cancel or job.lost:
        if job.stop_asked is not None and now - job.stop_asked < STOP_GRACE:
            return job, ()
        return replace(job, stop_asked=now), (Do.KILL, Do.STOP)
    return waiting(job, now) if now - since < AWAY_SECONDS else (job, ())


def beaten(job: Followed, reply: HeartbeatReply) -> Followed:
    """A heartbeat was answered."""
    return replace(job, cancel=job.cancel or reply.cancel, lease_seconds=reply.lease_seconds)


def lost(job: Followed) -> Followed:
    """A heartbeat was refused: the lease is another's."""
    return replace(job, lost=True)


def cause_of(seen: Seen) -> JobCause:
    """What the attempt failed of, as far as one can tell from outside."""
    if seen.cause is not None:
        return seen.cause
    no_environment = seen.state is DriverState.ENDED and seen.exit_code == NO_ENVIRONMENT
    return JobCause.ENVIRONMENT if no_environment else JobCause.DRIVER_DIED


def detail_of(seen: Seen) -> str:
    """Why the driver ended, likewise."""
    if seen.state is DriverState.MISSING:
        return "the cluster does not know the job's driver any more: it was started anew"
    if seen.cause is not None or cause_of(seen) is JobCause.ENVIRONMENT:
        return seen.last_line
    how = "was killed" if seen.exit_code is None else f"ended with exit code {seen.exit_code}"
    last = f"; its last line: {seen.last_line}" if seen.last_line else ""
    return f"the job's driver {how} before it reported an end{last}"


def _running(job: Followed, now: float) -> tuple[Followed, tuple[Do, ...]]:
    actions: list[Do] = []
    if job.cancel or job.lost:
        if job.stop_asked is None:
            actions = [Do.STOP]
        elif now - job.stop_asked >= STOP_GRACE:
            actions = [Do.KILL, Do.STOP]
        if actions:
            job = replace(job, stop_asked=now)
    if now >= job.beat_due and not job.lost:
        job = replace(job, beat_due=_next_beat(job, now))
        actions.append(Do.BEAT)
    return job, tuple(actions)


def _next_beat(job: Followed, now: float) -> float:
    return now + min(job.lease_seconds / 3, MAX_BEAT)
