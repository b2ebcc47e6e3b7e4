"""Routes of fleets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import DEFAULT_PAGE, Ctx, Cursor, Limit, Needs
from schemas.access import Scope
from schemas.api import Page
from schemas.fleet import FleetSpec, FleetView
from schemas.ids import Name

router = APIRouter(prefix="/v1/fleets", tags=["devices"], route_class=StrictRoute)

_READ = [Depends(Needs(Scope.DEVICES_READ))]
_WRITE = [Depends(Needs(Scope.DEVICES_WRITE))]

FleetName = Annotated[Name, Path()]


@router.get("", dependencies=_READ, operation_id="list_fleets")
def ls(ctx: Ctx, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None) -> Page[FleetView]:
    """Fleets by name; their members are not counted here."""
    items = tuple(ctx.fleets.page(cursor, limit))
    return Page(items=items, next=items[-1].name if len(items) == limit else None)


@router.get("/{name}", dependencies=_READ, operation_id="get_fleet")
def get(ctx: Ctx, name: FleetName) -> FleetView:
    """A fleet, with the active devices that match it now, by class and presence."""
    return ctx.fleets.get(name)


@router.put("/{name}", dependencies=_WRITE, operation_id="set_fleet")
def put(ctx: Ctx, name: FleetName, spec: FleetSpec) -> FleetView:
    """Save a selector; rollouts that are planned already go by what it was then."""
    return ctx.fleets.put(name, spec)


@router.delete("/{name}", dependencies=_WRITE, operation_id="delete_fleet")
def delete(ctx: Ctx, name: FleetName) -> FleetView:
    """Forget a fleet; refused while a rollout that is not over names it."""
    return ctx.fleets.delete(name)
