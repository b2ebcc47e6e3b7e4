"""Routes of join tokens, enrollment and devices."""

from __future__ import annotations

from fastapi import APIRouter, Depends, status
from fastapi.responses import PlainTextResponse

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import DEFAULT_PAGE, Allow, Ctx, Cursor, Limit
from orchestrator.services.keys import Role
from schemas.api import Page
from schemas.device import DeviceView
from schemas.enroll import Enrolled, EnrollRequest, TokenCreated, TokenRequest, TokenView

operator = APIRouter(
    prefix="/v1",
    tags=["devices"],
    route_class=StrictRoute,
    dependencies=[Depends(Allow(Role.ADMIN))],
)
public = APIRouter(prefix="/v1", tags=["enrollment"], route_class=StrictRoute)


@operator.post("/tokens", status_code=status.HTTP_201_CREATED, operation_id="create_token")
def create_token(ctx: Ctx, request: TokenRequest) -> TokenCreated:
    return ctx.devices.create_token(request)


@operator.get("/tokens", operation_id="list_tokens")
def tokens(ctx: Ctx, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None) -> Page[TokenView]:
    items = tuple(ctx.devices.tokens(cursor, limit))
    return Page(items=items, next=items[-1].id if len(items) == limit else None)


@operator.get("/devices", operation_id="list_devices")
def ls(ctx: Ctx, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None) -> Page[DeviceView]:
    items = tuple(ctx.devices.page(cursor, limit))
    return Page(items=items, next=items[-1].id if len(items) == limit else None)


@operator.get("/devices/{device_id}", operation_id="get_device")
def get(ctx: Ctx, device_id: str) -> DeviceView:
    return ctx.devices.get(device_id)


@public.post("/enroll", status_code=status.HTTP_201_CREATED, operation_id="enroll_device")
def enroll(ctx: Ctx, request: EnrollRequest) -> Enrolled:
    """Turn a join token and a certificate request into a device."""
    return ctx.devices.enroll(request)


@public.get("/trust/ca.pem", operation_id="get_ca", response_class=PlainTextResponse)
def ca(ctx: Ctx) -> str:
    """The CA's certificate; its hash is in every join token."""
    return ctx.ca_pem


@public.get("/trust/root.json", operation_id="get_root", response_class=PlainTextResponse)
def root(ctx: Ctx) -> str:
    """The trust root; its hash is in every join token."""
    return ctx.root_json
