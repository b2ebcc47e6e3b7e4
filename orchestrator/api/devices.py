"""Routes of join tokens and devices."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, status

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import DEFAULT_PAGE, Ctx, Cursor, Limit, Needs
from orchestrator.errors import Invalid
from schemas.access import Scope
from schemas.api import Page
from schemas.base import VersionNo
from schemas.device import DeviceState, DeviceView
from schemas.device_why import DeviceWhy
from schemas.enroll import RevokeDevice, TokenCreated, TokenRequest, TokenView
from schemas.fleet import DeviceTags, TagChange, TagMany, TagsChanged
from schemas.ids import Name
from schemas.selector import SelectorText

router = APIRouter(prefix="/v1", tags=["devices"], route_class=StrictRoute)

_READ = [Depends(Needs(Scope.DEVICES_READ))]
_WRITE = [Depends(Needs(Scope.DEVICES_WRITE))]

Id = Annotated[str, Path(max_length=100)]
States = Annotated[list[DeviceState] | None, Query(alias="state", max_length=len(DeviceState))]


@router.post(
    "/tokens",
    dependencies=_WRITE,
    status_code=status.HTTP_201_CREATED,
    operation_id="create_token",
)
def create_token(ctx: Ctx, request: TokenRequest) -> TokenCreated:
    """Make a join token; this answer is the only place that holds it."""
    return ctx.tokens.create(request)


@router.get("/tokens", dependencies=_READ, operation_id="list_tokens")
def tokens(ctx: Ctx, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None) -> Page[TokenView]:
    items = tuple(ctx.tokens.list(cursor, limit))
    return Page(items=items, next=items[-1].id if len(items) == limit else None)


@router.post("/tokens/{token_id}/revoke", dependencies=_WRITE, operation_id="revoke_token")
def revoke_token(ctx: Ctx, token_id: Id) -> TokenView:
    """Let nobody else in by it; who came with it stays."""
    return ctx.tokens.revoke(token_id)


@router.get("/devices", dependencies=_READ, operation_id="list_devices")
def ls(
    ctx: Ctx,
    *,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = None,
    states: States = None,
    model: Name | None = None,
    version: VersionNo | None = None,
    where: SelectorText | None = None,
) -> Page[DeviceView]:
    """Devices, newest first; only those that fit all of what is named."""
    if version is not None and model is None:
        msg = "a version is of a model: name it too, as in ?model=digits&version=3"
        raise Invalid(msg)
    found = ctx.devices.page(cursor, limit, states or (), model=model, version=version, where=where)
    items = tuple(found)
    return Page(items=items, next=items[-1].id if len(items) == limit else None)


@router.put("/devices/{device_id}/tags", dependencies=_WRITE, operation_id="tag_device")
def tag(ctx: Ctx, device_id: Id, request: DeviceTags) -> DeviceView:
    """Give a device exactly these tags; PATCH leaves those that it does not name."""
    return ctx.devices.tag(device_id, request.tags)


@router.patch("/devices/{device_id}/tags", dependencies=_WRITE, operation_id="retag_device")
def retag(ctx: Ctx, device_id: Id, change: TagChange) -> DeviceView:
    """Give a device tags and take others away; two who do so at once lose nothing."""
    return ctx.devices.retag(device_id, change)


@router.patch("/devices/tags", dependencies=_WRITE, operation_id="retag_devices")
def retag_many(ctx: Ctx, asked: TagMany) -> TagsChanged:
    """Change the tags of every device that a selector matches: all of them, or none."""
    return ctx.devices.retag_all(asked)


@router.get("/devices/{device_id}", dependencies=_READ, operation_id="get_device")
def get(ctx: Ctx, device_id: Id) -> DeviceView:
    return ctx.devices.get(device_id)


@router.get("/devices/{device_id}/why", dependencies=_READ, operation_id="explain_device")
def why(ctx: Ctx, device_id: Id) -> DeviceWhy:
    """Why a device serves what it serves, by which rollout and rule, and why nothing newer."""
    return ctx.why.explain(device_id)


@router.post("/devices/{device_id}/approve", dependencies=_WRITE, operation_id="approve_device")
def approve(ctx: Ctx, device_id: Id) -> DeviceView:
    """Let a device in that waits; it gets its certificate when it asks again."""
    return ctx.admission.approve(device_id)


@router.post("/devices/{device_id}/reject", dependencies=_WRITE, operation_id="reject_device")
def reject(ctx: Ctx, device_id: Id) -> DeviceView:
    """Turn a device away that waits."""
    return ctx.admission.reject(device_id)


@router.post("/devices/{device_id}/revoke", dependencies=_WRITE, operation_id="revoke_device")
def revoke(ctx: Ctx, device_id: Id, request: RevokeDevice) -> DeviceView:
    """Shut a device out; a repeat changes nothing."""
    return ctx.admission.revoke(device_id, request.reason)


@router.post("/devices/{device_id}/clear-alert", dependencies=_WRITE, operation_id="clear_alert")
def clear_alert(ctx: Ctx, device_id: Id) -> DeviceView:
    """A suspected clone was looked into."""
    return ctx.admission.clear_alert(device_id)
