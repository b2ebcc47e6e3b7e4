"""A job as the API shows it."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime

from orchestrator.domain import cost
from orchestrator.domain.cost import Prices
from orchestrator.services.queues import QueueState
from orchestrator.services.records import JobRecord
from schemas.job import JobState, JobView

_SHOWN = frozenset(JobView.model_fields)
_SAME = tuple(f.name for f in fields(JobRecord) if f.name in _SHOWN and f.name != "usage")


def view(record: JobRecord, queue: QueueState, prices: Prices | None, now: datetime) -> JobView:
    """The view of a job.

    Args:
        record: the job.
        queue: where a queued one has its place and its notice from.
        prices: None shows no cost.
        now: the time.
    """
    values = {name: getattr(record, name) for name in _SAME}
    if record.state is JobState.QUEUED:
        values["position"] = queue.position(record.id)
        values["notice"] = queue.notice(record, now)
    usage = cost.total(record.usage.values())
    return JobView(**values, usage=usage, cost=cost.cost(usage, prices))
