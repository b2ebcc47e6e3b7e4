"""Routes of the registry."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Response, status

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import DEFAULT_PAGE, Caller, Ctx, Cursor, Limit, Needs
from schemas.access import Role, Scope
from schemas.api import Page
from schemas.base import VersionNo
from schemas.ids import Name
from schemas.model import (
    Comparison,
    Manifest,
    ModelVersionView,
    ModelView,
    RevokeRequest,
    VersionNote,
    VersionNumber,
)

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=StrictRoute)

_READ = [Depends(Needs(Scope.MODELS_READ))]
_WRITE = [Depends(Needs(Scope.MODELS_WRITE))]
_REGISTER = [Depends(Needs(Scope.MODELS_WRITE, Role.JOB))]
_RELEASE = [Depends(Needs(Scope.RELEASE))]

ModelName = Annotated[Name, Path()]
Tags = Annotated[str | None, Header(max_length=2000)]
Split = Annotated[str, Query(min_length=1, max_length=50)]


@router.get("", dependencies=_READ, operation_id="list_models")
def ls(ctx: Ctx, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None) -> Page[ModelView]:
    items = tuple(ctx.models.page(cursor, limit))
    return Page(items=items, next=items[-1].name if len(items) == limit else None)


@router.get("/{name}", dependencies=_READ, operation_id="get_model")
def get(ctx: Ctx, name: ModelName) -> ModelView:
    return ctx.models.model(name)


@router.get(
    "/{name}/versions/{version}",
    dependencies=_READ,
    operation_id="get_model_version",
    response_model=ModelVersionView,
    responses={status.HTTP_304_NOT_MODIFIED: {"description": "It is as `If-None-Match` says."}},
)
def get_version(
    ctx: Ctx, name: ModelName, version: VersionNo, if_none_match: Tags = None
) -> Response:
    """One version; with the last answer's `ETag` in `If-None-Match`, 304 if nothing changed."""
    body = ctx.models.get(name, version).model_dump_json().encode()
    tag = f'"{hashlib.sha256(body).hexdigest()}"'
    known = {one.strip().removeprefix("W/") for one in (if_none_match or "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers={"etag": tag})
    return Response(body, media_type="application/json", headers={"etag": tag})


@router.put(
    "/{name}/versions/{version}/note",
    dependencies=_WRITE,
    operation_id="annotate_model_version",
)
def annotate(ctx: Ctx, name: ModelName, version: VersionNo, note: VersionNote) -> ModelVersionView:
    """Replace the tags and the note of a version."""
    return ctx.models.annotate(name, version, note)


@router.post(
    "/{name}/versions/{version}/revoke",
    dependencies=_RELEASE,
    operation_id="revoke_model_version",
)
def revoke(
    ctx: Ctx, name: ModelName, version: VersionNo, request: RevokeRequest, caller: Caller
) -> ModelVersionView:
    """Take a version back: its aliases go, its rollouts are aborted; a repeat changes nothing."""
    return ctx.revocation.revoke(name, version, request, caller.key_id)


@router.get("/{name}/compare", dependencies=_READ, operation_id="compare_model_versions")
def compare(
    ctx: Ctx,
    name: ModelName,
    a: VersionNo,
    b: VersionNo,
    variant_a: Name | None = None,
    variant_b: Name | None = None,
    split: Split = "test",
) -> Comparison:
    """Version b held against a, on the same samples where both were measured on them."""
    return ctx.comparison.compare(name, a, b, variant_a=variant_a, variant_b=variant_b, split=split)


@router.post(
    "/{name}/versions",
    dependencies=_REGISTER,
    status_code=status.HTTP_201_CREATED,
    operation_id="register_model_version",
)
def register(
    ctx: Ctx, name: ModelName, manifest: Manifest, caller: Caller, response: Response
) -> VersionNumber:
    """Register a version; the same manifest again gives the number it has, with 200."""
    number = ctx.models.register(name, manifest, caller.subject, by=caller.key_id)
    if not number.created:
        response.status_code = status.HTTP_200_OK
    return number
