"""Routes that devices call before they have a connection: each brings its own proof."""

from __future__ import annotations

from fastapi import APIRouter, Response, status
from fastapi.responses import PlainTextResponse

from orchestrator.api.body import StrictRoute
from orchestrator.api.context import Ctx
from schemas.enroll import Enrolled, EnrollPending, EnrollRequest, Renewed, RenewRequest

public = APIRouter(prefix="/v1", tags=["enrollment"], route_class=StrictRoute)


@public.post(
    "/enroll",
    status_code=status.HTTP_201_CREATED,
    responses={status.HTTP_202_ACCEPTED: {"model": EnrollPending}},
    response_model=Enrolled | EnrollPending,
    operation_id="enroll_device",
)
def enroll(ctx: Ctx, request: EnrollRequest, response: Response) -> Enrolled | EnrollPending:
    """Turn a join token and a certificate request into a device.

    202 while it awaits approval; the same key with the same token is the same device.
    """
    answer = ctx.enrollment.enroll(request)
    if isinstance(answer, EnrollPending):
        response.status_code = status.HTTP_202_ACCEPTED
    return answer


@public.post("/renew", operation_id="renew_certificate")
def renew(ctx: Ctx, request: RenewRequest) -> Renewed:
    """Renew a certificate that has expired, by proof of its key."""
    return ctx.renewals.by_proof(request)


@public.get("/trust/ca.pem", operation_id="get_ca", response_class=PlainTextResponse)
def ca(ctx: Ctx) -> str:
    """The authority's roots; the hash of one is in every join token."""
    return ctx.authority.pem
