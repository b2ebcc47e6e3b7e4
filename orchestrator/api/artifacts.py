"""The route of the artifact collection; files come and go in ``api.models``."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import Allow, Ctx
from orchestrator.services.keys import Role
from schemas.model import CollectReport, CollectRequest

operator = APIRouter(
    prefix="/v1/artifacts",
    tags=["models"],
    route_class=StrictRoute,
    dependencies=[Depends(Allow(Role.ADMIN))],
)


@operator.post("/collect", operation_id="collect_artifacts")
def collect(ctx: Ctx, request: CollectRequest) -> CollectReport:
    """Delete the files that nothing needs; only says what would go unless told otherwise."""
    return ctx.collection.collect(request)
