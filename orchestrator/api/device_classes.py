"""Routes of device classes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import DEFAULT_PAGE, Ctx, Cursor, Limit, Needs
from schemas.access import Scope
from schemas.api import Page
from schemas.budget import DeviceClassSpec, DeviceClassView
from schemas.ids import Name

router = APIRouter(prefix="/v1/device-classes", tags=["devices"], route_class=StrictRoute)

_READ = [Depends(Needs(Scope.DEVICES_READ))]
_WRITE = [Depends(Needs(Scope.DEVICES_WRITE))]

ClassName = Annotated[Name, Path()]


@router.get("", dependencies=_READ, operation_id="list_device_classes")
def ls(ctx: Ctx, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None) -> Page[DeviceClassView]:
    """Classes that were set, and those that devices are in."""
    items = tuple(ctx.device_classes.page(cursor, limit))
    return Page(items=items, next=items[-1].name if len(items) == limit else None)


@router.get("/{name}", dependencies=_READ, operation_id="get_device_class")
def get(ctx: Ctx, name: ClassName) -> DeviceClassView:
    return ctx.device_classes.get(name)


@router.put("/{name}", dependencies=_WRITE, operation_id="set_device_class")
def put(ctx: Ctx, name: ClassName, spec: DeviceClassSpec) -> DeviceClassView:
    return ctx.device_classes.put(name, spec)


@router.delete("/{name}", dependencies=_WRITE, operation_id="delete_device_class")
def delete(ctx: Ctx, name: ClassName) -> DeviceClassView:
    """Forget a class; refused while devices are in it, which would lose their budget."""
    return ctx.device_classes.delete(name)
