"""The route that edits a rollout."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import Ctx, Needs
from orchestrator.api.preconditions import Revisions, tell_revision
from schemas.access import Scope
from schemas.rollout_view import RolloutEdit, RolloutView

router = APIRouter(prefix="/v1", tags=["rollouts"], route_class=StrictRoute)


@router.patch(
    "/rollouts/{rollout_id}",
    dependencies=[Depends(Needs(Scope.ROLLOUTS_WRITE))],
    operation_id="edit_rollout",
)
def edit(
    ctx: Ctx, rollout_id: str, change: RolloutEdit, revisions: Revisions, response: Response
) -> RolloutView:
    """Change pace, gates, windows, priority or what a failure leads to, of a rollout not over.

    `If-Match` says which revision was looked at, by the ETag of `GET`; 412 if it is another by now.
    """
    view = ctx.rollouts.edit(rollout_id, change, revisions)
    tell_revision(response, view.revision)
    return view
