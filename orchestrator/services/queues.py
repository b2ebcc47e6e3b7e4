"""The queue as it stands: what waits in which order, who runs what, which agents there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain import queue
from orchestrator.domain.queue import Failure, Offer, Running, Waiting
from orchestrator.services.ports import Transaction
from orchestrator.services.records import JobRecord, QueuedJob
from schemas.job import Capacity, JobState

MAX_QUEUED = 1000
"""Jobs that are considered at a time, of those alike in project, priority and resources."""

RECENT = timedelta(hours=24)
"""How long what a project used counts against it."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """One look at the queue. places: by id, from 1, in order."""

    jobs: Mapping[str, QueuedJob]
    places: Mapping[str, int]
    offers: tuple[Offer, ...]

    def position(self, job_id: str) -> int | None:
        """A job's place, from 1; None when it is not queued, or too far behind."""
        return self.places.get(job_id)

    def ready(self, capacity: Capacity | None, now: datetime) -> Iterator[str]:
        """The jobs that may start now on a cluster of that capacity, in order."""
        for job_id in self.places:
            job = self.jobs[job_id]
            rested = job.not_before is None or job.not_before <= now
            if rested and queue.fits(job.resources, capacity) is None:
                yield job_id

    def notice(self, record: JobRecord, now: datetime) -> str | None:
        """What a queued job waits for, in words."""
        failure = (
            None
            if record.not_before is None
            else Failure(record.attempt, record.cause, record.detail, record.not_before)
        )
        return queue.notice(record.spec.resources, failure, self.offers, now)


NOTHING = QueueState({}, {}, ())
"""An empty queue."""


def look(tx: Transaction, now: datetime) -> QueueState:
    """The queue in one transaction."""
    jobs = {job.id: job for job in tx.jobs.queued(MAX_QUEUED)}
    if not jobs:
        return NOTHING
    waiting = [Waiting(job.id, job.project, job.priority, job.created_at) for job in jobs.values()]
    running = [Running(job.id, job.project) for job in tx.jobs.active()]
    order = queue.order(waiting, running, tx.jobs.recent_use(now - RECENT), now)
    offers = [Offer(agent.name, agent.capacity, agent.seen_at) for agent in tx.agents.all()]
    places = {job_id: place for place, job_id in enumerate(order, 1)}
    return QueueState(jobs, places, tuple(offers))


def is_claimable(record: JobRecord, now: datetime) -> bool:
    """Whether a job may be handed out now."""
    rested = record.not_before is None or record.not_before <= now
    return record.state is JobState.QUEUED and rested
