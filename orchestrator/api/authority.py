"""Routes of the certificate authorities."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import Ctx, Needs
from schemas.access import Scope
from schemas.authority import AuthorityView, RetireRequest

router = APIRouter(prefix="/v1", tags=["authority"], route_class=StrictRoute)
public = APIRouter(prefix="/v1", tags=["authority"], route_class=StrictRoute)

READ = [Depends(Needs(Scope.TRUST_READ))]
WRITE = [Depends(Needs(Scope.TRUST_WRITE))]


@router.get("/authority", operation_id="get_authority", dependencies=READ)
def status(ctx: Ctx) -> AuthorityView:
    """The authorities as they stand, and how many devices know which."""
    return ctx.authority.status()


@router.post("/authority/rotate", operation_id="rotate_authority", dependencies=WRITE)
def rotate(ctx: Ctx) -> AuthorityView:
    """Make a new root; the old one is trusted until it is retired."""
    return ctx.authority.rotate()


@router.post("/authority/retire", operation_id="retire_authority", dependencies=WRITE)
def retire(ctx: Ctx, request: RetireRequest) -> AuthorityView:
    """Trust the old root no more."""
    return ctx.authority.retire(force=request.force)


@public.get("/trust/crl.pem", operation_id="get_crl", response_class=PlainTextResponse)
def crl(ctx: Ctx) -> str:
    """The revocation lists, for a broker that is run elsewhere."""
    return ctx.authority.crl_pem
