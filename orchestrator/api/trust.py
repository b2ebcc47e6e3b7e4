"""Routes of the trust metadata."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import PlainTextResponse

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import Ctx, Needs
from orchestrator.errors import NotFound
from schemas.access import Scope
from schemas.ids import Sha256
from schemas.trust import MetadataName, MetadataUpload, TrustView

public = APIRouter(prefix="/v1/trust", tags=["trust"], route_class=StrictRoute)
router = APIRouter(prefix="/v1/trust", tags=["trust"], route_class=StrictRoute)


@public.get("/root.json", operation_id="get_root", response_class=PlainTextResponse)
def root(ctx: Ctx, sha256: Annotated[Sha256 | None, Query()] = None) -> str:
    """The newest root; with `sha256` the version of that hash, which a join token pins."""
    return ctx.trust.root(sha256)


@public.get("/metadata/{name}", operation_id="get_trust_metadata", response_class=PlainTextResponse)
def metadata(ctx: Ctx, name: Annotated[MetadataName, Path()]) -> PlainTextResponse:
    """A file of TUF metadata; 404 ends a client's walk over the versions of the root."""
    raw = ctx.trust.metadata(name)
    if raw is None:
        msg = f"there is no metadata file {name}"
        raise NotFound(msg)
    # Only the timestamp is ever replaced under its name; it must not be served stale.
    age = "no-cache" if name == "timestamp.json" else "public, max-age=86400"
    return PlainTextResponse(raw, media_type="application/json", headers={"cache-control": age})


@router.get("", dependencies=[Depends(Needs(Scope.TRUST_READ))], operation_id="get_trust")
def view(ctx: Ctx) -> TrustView:
    """Roles, what is unsigned, and what somebody should look after."""
    return ctx.trust.view()


@router.post(
    "/metadata",
    dependencies=[Depends(Needs(Scope.TRUST_WRITE))],
    operation_id="upload_trust_metadata",
)
def upload(ctx: Ctx, request: MetadataUpload) -> TrustView:
    """Publish metadata that was signed elsewhere, all of it or nothing."""
    return ctx.trust.upload(request.files)
