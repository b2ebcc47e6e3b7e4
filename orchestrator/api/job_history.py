"""Routes of a job's course: metrics, logs, the profile of its data."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from orchestrator.api.context import DEFAULT_PAGE, Ctx, Cursor, Limit, Needs, number
from orchestrator.domain.logs import MAX_SEARCH, LogQuery
from orchestrator.services.job_history import JobHistoryService
from schemas.access import Scope
from schemas.api import Page
from schemas.base import MAX_INTEGER, Line
from schemas.dataset import DatasetProfile
from schemas.job import LogLine, MetricPoint
from schemas.sweep import MAX_TRIALS

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[Depends(Needs(Scope.JOBS_READ))])

MAX_POINTS = 5_000
MAX_TAIL = 2_000


def _service(ctx: Ctx) -> JobHistoryService:
    return JobHistoryService(ctx.uow)


def _bounded(cursor: str | None, default: int) -> int:
    """A cursor that every database can compare with."""
    return max(-1, min(number(cursor, default), MAX_INTEGER))


History = Annotated[JobHistoryService, Depends(_service)]


@router.get("/{job_id}/metrics", operation_id="list_job_metrics")
def metrics(
    history: History,
    job_id: str,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
    trial: Annotated[int | None, Query(ge=0, le=MAX_TRIALS)] = None,
    points: Annotated[int | None, Query(ge=10, le=MAX_POINTS)] = None,
) -> Page[MetricPoint]:
    """Metrics by epoch; the cursor is the last epoch seen.

    ``trial``: of a sweep, one alone. ``points``: all there are after the cursor in one
    answer, downsampled to about so many: first, last and extremes are kept.
    """
    after = _bounded(cursor, -1)
    if points is None:
        items = tuple(history.metrics(job_id, after, limit, trial))
    else:
        items = tuple(history.curve(job_id, after, points, trial))
    return Page(items=items, next=str(items[-1].epoch) if items else cursor)


@router.get("/{job_id}/logs", operation_id="list_job_logs")
def logs(
    history: History,
    job_id: str,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
    search: Annotated[Line | None, Query(max_length=MAX_SEARCH)] = None,
    level: Annotated[Literal["debug", "info", "warning", "error"] | None, Query()] = None,
    tail: Annotated[int | None, Query(ge=1, le=MAX_TAIL)] = None,
) -> Page[LogLine]:
    """Log lines in order; ``next`` is always set, so that a reader can go on later.

    ``search``: text that a line holds; case does not matter. ``level``: the least.
    ``tail``: the last so many of those lines, after which ``next`` goes on.
    """
    query = LogQuery(
        after=_bounded(cursor, 0),
        limit=tail or limit,
        search=search,
        level=level,
        tail=tail is not None,
    )
    items, last = history.logs(job_id, query)
    return Page(items=tuple(items), next=str(last))


@router.get("/{job_id}/profile", operation_id="get_job_profile")
def profile(history: History, job_id: str) -> DatasetProfile:
    """What the job found in its data set before training."""
    return history.profile(job_id)
