"""Routes of experiments."""

from __future__ import annotations

from fastapi import APIRouter, Depends, status

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import DEFAULT_PAGE, Ctx, Cursor, Limit, Needs
from schemas.access import Scope
from schemas.api import Page
from schemas.experiment import ExperimentSpec, ExperimentView, StopRequest

router = APIRouter(prefix="/v1/experiments", tags=["experiments"], route_class=StrictRoute)

_READ = [Depends(Needs(Scope.ROLLOUTS_READ))]
_WRITE = [Depends(Needs(Scope.ROLLOUTS_WRITE))]


@router.post(
    "",
    dependencies=_WRITE,
    status_code=status.HTTP_201_CREATED,
    operation_id="start_experiment",
)
def start(ctx: Ctx, spec: ExperimentSpec) -> ExperimentView:
    """Split devices between two versions, and bring each side its own."""
    return ctx.experiments.start(spec)


@router.get("", dependencies=_READ, operation_id="list_experiments")
def ls(ctx: Ctx, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None) -> Page[ExperimentView]:
    """Experiments, newest first, without what they show."""
    items = tuple(ctx.experiments.page(cursor, limit))
    return Page(items=items, next=items[-1].id if len(items) == limit else None)


@router.get("/{experiment_id}", dependencies=_READ, operation_id="get_experiment")
def get(ctx: Ctx, experiment_id: str) -> ExperimentView:
    """One experiment: its arms, and how they differ."""
    return ctx.experiments.get(experiment_id)


@router.post("/{experiment_id}/stop", dependencies=_WRITE, operation_id="stop_experiment")
def stop(ctx: Ctx, experiment_id: str, request: StopRequest | None = None) -> ExperimentView:
    """End both arms; the winner's version may be given to the other one's devices."""
    return ctx.experiments.stop(experiment_id, request or StopRequest())
