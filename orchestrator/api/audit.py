"""The route of the audit log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from orchestrator.api.context import Ctx, Needs
from orchestrator.services.ports import AuditQuery
from schemas.access import AuditEntry, Scope
from schemas.api import Page
from schemas.base import UtcTime

router = APIRouter(prefix="/v1/audit", tags=["access"])

MAX_ENTRIES = 1000
MAX_SEQ = 2**31 - 1

_READ = [Depends(Needs(Scope.AUDIT_READ))]
_Count = Query(ge=1, le=MAX_ENTRIES)


@router.get("", dependencies=_READ, operation_id="list_audit", response_model=Page[AuditEntry])
def ls(
    ctx: Ctx,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ)] = 0,
    limit: Annotated[int, _Count] = 500,
    tail: Annotated[int | None, _Count] = None,
    actor: Annotated[str | None, Query(max_length=100)] = None,
    action: Annotated[str | None, Query(max_length=64)] = None,
    since: Annotated[UtcTime | None, Query()] = None,
) -> Response:
    """Entries, oldest first: ``after`` a number, or the last ``tail``; ``next`` goes on."""
    query = AuditQuery(after=after, limit=limit, tail=tail, actor=actor, action=action, since=since)
    items = ctx.audit.entries(query)
    more = tail is None and len(items) == limit
    # As it stands in the database, and not made to fit: who verifies it must see what is wrong.
    body = {
        "items": [item.model_dump(mode="json", warnings=False) for item in items],
        "next": str(items[-1].seq) if more else None,
    }
    return JSONResponse(body)
