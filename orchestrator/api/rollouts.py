"""Routes of rollouts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response, status

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import DEFAULT_PAGE, Ctx, Cursor, Limit, Needs
from orchestrator.api.preconditions import StatedRevisions, tell_revision
from orchestrator.domain.acts import Act
from schemas.access import Scope
from schemas.api import Page
from schemas.rollout import ExecState, RolloutSpec
from schemas.rollout_view import ExecutionView, OperateRequest, Retried, RetryRequest, RolloutView

router = APIRouter(prefix="/v1", tags=["rollouts"], route_class=StrictRoute)

_READ = [Depends(Needs(Scope.ROLLOUTS_READ))]
_WRITE = [Depends(Needs(Scope.ROLLOUTS_WRITE))]


@router.post(
    "/rollouts",
    dependencies=_WRITE,
    status_code=status.HTTP_201_CREATED,
    operation_id="plan_rollout",
)
def plan(ctx: Ctx, spec: RolloutSpec) -> RolloutView:
    """Plan a rollout; nothing is sent before it is started."""
    return ctx.rollouts.plan(spec)


@router.get("/rollouts", dependencies=_READ, operation_id="list_rollouts")
def ls(ctx: Ctx, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None) -> Page[RolloutView]:
    items = tuple(ctx.rollouts.page(cursor, limit))
    return Page(items=items, next=items[-1].id if len(items) == limit else None)


@router.get("/rollouts/{rollout_id}", dependencies=_READ, operation_id="get_rollout")
def get(ctx: Ctx, rollout_id: str, response: Response) -> RolloutView:
    view = ctx.rollouts.get(rollout_id)
    tell_revision(response, view.revision)
    return view


@router.get(
    "/rollouts/{rollout_id}/executions",
    dependencies=_READ,
    operation_id="list_executions",
)
def executions(
    ctx: Ctx,
    rollout_id: str,
    *,
    state: Annotated[tuple[ExecState, ...], Query(max_length=len(ExecState))] = (),
    wave: Annotated[int | None, Query(ge=0, le=1000)] = None,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
) -> Page[ExecutionView]:
    """Devices of a rollout, only those in some states or of one wave if any are named."""
    items = tuple(
        ctx.rollouts.executions(rollout_id, cursor, limit, states=frozenset(state), wave=wave)
    )
    return Page(items=items, next=items[-1].id if len(items) == limit else None)


@router.post("/rollouts/{rollout_id}/retry", dependencies=_WRITE, operation_id="retry_rollout")
def retry(ctx: Ctx, rollout_id: str, request: RetryRequest, revisions: StatedRevisions) -> Retried:
    """Make another attempt on devices where it came to nothing; `If-Match` as in an act."""
    return ctx.rollouts.retry(rollout_id, request, revisions)


@router.post("/rollouts/{rollout_id}/{act}", dependencies=_WRITE, operation_id="operate_rollout")
def operate(
    ctx: Ctx,
    rollout_id: str,
    act: Act,
    revisions: StatedRevisions,
    response: Response,
    request: OperateRequest | None = None,
) -> RolloutView:
    """Apply an operator's act; why may be said, and is kept.

    One that is done already changes nothing, and `notes` says so. With `If-Match`, the ETag of
    `GET`, it counts for that revision alone: else 412.
    """
    said = request or OperateRequest()
    view = ctx.rollouts.operate(
        rollout_id,
        act,
        said.reason,
        to=said.to,
        full=said.full,
        wave=said.wave,
        revisions=revisions,
    )
    tell_revision(response, view.revision)
    return view
