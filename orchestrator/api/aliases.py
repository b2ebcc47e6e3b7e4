"""Routes of aliases."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import DEFAULT_PAGE, Caller, Ctx, Cursor, Limit, Needs, number
from schemas.access import Scope
from schemas.api import Page
from schemas.base import MAX_INTEGER, VersionNo
from schemas.ids import Name
from schemas.model import AliasChange, AliasRequest, ModelView

router = APIRouter(
    prefix="/v1/models/{name}/aliases/{alias}",
    tags=["models"],
    route_class=StrictRoute,
)

_READ = [Depends(Needs(Scope.MODELS_READ))]
_RELEASE = [Depends(Needs(Scope.RELEASE))]

PathName = Annotated[Name, Path()]


@router.put("", dependencies=_RELEASE, operation_id="put_model_alias")
def put(
    ctx: Ctx, name: PathName, alias: PathName, request: AliasRequest, caller: Caller
) -> ModelView:
    """Move an alias; with `expected`, only from that version (else 409 with where it is)."""
    return ctx.aliases.put(name, alias, request, caller.key_id)


@router.delete("", dependencies=_RELEASE, operation_id="delete_model_alias")
def delete(
    ctx: Ctx,
    name: PathName,
    alias: PathName,
    caller: Caller,
    expected: Annotated[VersionNo | None, Query()] = None,
) -> ModelView:
    """Take an alias away; with `expected`, only from that version."""
    return ctx.aliases.delete(name, alias, expected, caller.key_id)


@router.get("/history", dependencies=_READ, operation_id="get_model_alias_history")
def history(
    ctx: Ctx,
    name: PathName,
    alias: PathName,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
) -> Page[AliasChange]:
    """The moves of an alias, newest first."""
    before = None if cursor is None else max(0, min(number(cursor, 0), MAX_INTEGER))
    found = ctx.aliases.history(name, alias, before, limit)
    last = str(found[-1][0]) if len(found) == limit else None
    return Page(items=tuple(change for _, change in found), next=last)
