"""Routes of training jobs: for operators, for agents, for drivers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response, status

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import DEFAULT_PAGE, Allow, Ctx, Cursor, Limit, Needs, own_job
from schemas.access import Role, Scope
from schemas.api import Page
from schemas.job import (
    AgentOutcome,
    ClaimRequest,
    Heartbeat,
    HeartbeatReply,
    JobClaim,
    JobOrder,
    JobProgress,
    JobState,
    JobView,
)
from schemas.jobfile import JobSpec

operator = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)
agent = APIRouter(
    prefix="/v1/worker",
    tags=["workers"],
    route_class=StrictRoute,
    dependencies=[Depends(Allow(Role.WORKER))],
)
driver = APIRouter(
    prefix="/v1/jobs",
    tags=["workers"],
    route_class=StrictRoute,
    dependencies=[Depends(Allow(Role.JOB)), Depends(own_job)],
)

_READ = [Depends(Needs(Scope.JOBS_READ))]
_WRITE = [Depends(Needs(Scope.JOBS_WRITE))]

Filter = Annotated[str | None, Query(max_length=100)]
SubmissionKey = Annotated[str | None, Header(pattern="^[A-Za-z0-9_-]{16,64}$")]
States = Annotated[tuple[JobState, ...], Query(max_length=len(JobState))]


@operator.post(
    "",
    dependencies=_WRITE,
    status_code=status.HTTP_201_CREATED,
    operation_id="submit_job",
)
def submit(ctx: Ctx, spec: JobSpec, idempotency_key: SubmissionKey = None) -> JobView:
    """Queue a job; with an ``Idempotency-Key``, a repeat answers with the job it made."""
    return ctx.jobs.submit(spec, idempotency_key)


@operator.get("", dependencies=_READ, operation_id="list_jobs")
def ls(
    ctx: Ctx,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
    state: States = (),
    project: Filter = None,
    name: Filter = None,
) -> Page[JobView]:
    """Jobs, newest first; ``state`` may be repeated."""
    items = tuple(ctx.jobs.page(cursor, limit, states=state, project=project, name=name))
    return Page(items=items, next=items[-1].id if len(items) == limit else None)


@operator.get("/{job_id}", dependencies=_READ, operation_id="get_job")
def get(ctx: Ctx, job_id: str) -> JobView:
    return ctx.jobs.get(job_id)


@operator.post("/{job_id}/cancel", dependencies=_WRITE, operation_id="cancel_job")
def cancel(ctx: Ctx, job_id: str) -> JobView:
    return ctx.jobs.cancel(job_id)


@agent.post(
    "/claim", operation_id="claim_job", responses={204: {"description": "nothing is queued"}}
)
def claim(ctx: Ctx, request: ClaimRequest, response: Response) -> JobClaim | None:
    """Take the first queued job that the cluster can hold."""
    found = ctx.jobs.claim(request)
    if found is None:
        response.status_code = status.HTTP_204_NO_CONTENT
    return found


@agent.post("/jobs/{job_id}/heartbeat", operation_id="renew_job_lease")
def heartbeat(ctx: Ctx, job_id: str, beat: Heartbeat) -> HeartbeatReply:
    return ctx.jobs.heartbeat(job_id, beat)


@agent.post("/jobs/{job_id}/outcome", operation_id="end_job")
def outcome(ctx: Ctx, job_id: str, report: AgentOutcome) -> JobView:
    return ctx.jobs.outcome(job_id, report)


@driver.get("/{job_id}/order", operation_id="get_job_order")
def order(ctx: Ctx, job_id: str) -> JobOrder:
    """What a job's driver is to do."""
    return ctx.orders.order(job_id)


@driver.post("/{job_id}/progress", operation_id="report_job_progress")
def progress(ctx: Ctx, job_id: str, report: JobProgress) -> HeartbeatReply:
    return ctx.jobs.progress(job_id, report)
