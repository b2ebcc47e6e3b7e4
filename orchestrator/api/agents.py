"""Routes of agents."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from orchestrator.api.context import DEFAULT_PAGE, Ctx, Cursor, Limit, Needs
from schemas.access import Scope
from schemas.api import Page
from schemas.job import AgentView

operator = APIRouter(
    prefix="/v1/agents", tags=["agents"], dependencies=[Depends(Needs(Scope.JOBS_READ))]
)


@operator.get("", operation_id="list_agents")
def ls(ctx: Ctx, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None) -> Page[AgentView]:
    """Agents that asked for work within a day, by name."""
    items = tuple(ctx.agents.page(cursor, limit))
    return Page(items=items, next=items[-1].name if len(items) == limit else None)
