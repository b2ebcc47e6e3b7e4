"""Routes of API tokens, and who the caller is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, status

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import DEFAULT_PAGE, AnyToken, Caller, Ctx, Cursor, Limit, Needs
from orchestrator.api.cookies import csrf_in
from orchestrator.services.access import whoami
from schemas.access import ApiTokenCreated, ApiTokenRequest, ApiTokenView, Scope, Whoami
from schemas.api import Page

router = APIRouter(prefix="/v1", tags=["access"], route_class=StrictRoute)

_ANY = [Depends(AnyToken())]
_WRITE = [Depends(Needs(Scope.ACCESS_WRITE))]


@router.get("/whoami", dependencies=_ANY, operation_id="get_whoami")
def who(request: Request, ctx: Ctx, caller: Caller) -> Whoami:
    """Whose token or session this is, and what it may do."""
    return whoami(caller, csrf_in(request, secure=ctx.secure) if caller.session else None)


@router.post(
    "/api-tokens",
    dependencies=_WRITE,
    status_code=status.HTTP_201_CREATED,
    operation_id="create_api_token",
)
def create(ctx: Ctx, caller: Caller, request: ApiTokenRequest) -> ApiTokenCreated:
    """Make a token for a person; with at most the caller's own rights."""
    return ctx.access.create(caller, request)


@router.get("/api-tokens", dependencies=_WRITE, operation_id="list_api_tokens")
def ls(ctx: Ctx, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None) -> Page[ApiTokenView]:
    """Tokens of people and of agents, newest first."""
    items = tuple(ctx.access.page(cursor, limit))
    return Page(items=items, next=items[-1].id if len(items) == limit else None)


@router.post("/api-tokens/{token_id}/revoke", dependencies=_WRITE, operation_id="revoke_api_token")
def revoke(
    ctx: Ctx, caller: Caller, token_id: str, *, force: Annotated[bool, Query()] = False
) -> ApiTokenView:
    """End a token and its sessions; `force`: also the one that the caller came with."""
    return ctx.access.revoke(caller, token_id, force=force)
