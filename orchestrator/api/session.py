"""Routes of the page's sessions: a token is exchanged for a cookie."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response, status

from orchestrator.api import cookies
from orchestrator.api.body import StrictRoute
from orchestrator.api.context import AnyToken, Caller, Ctx, address_of
from orchestrator.errors import Unauthenticated
from orchestrator.services.access import csrf_of, whoami
from schemas.access import SessionRequest, Whoami

router = APIRouter(prefix="/v1/session", tags=["access"], route_class=StrictRoute)


@router.post("", operation_id="start_session")
def start(ctx: Ctx, request: Request, response: Response, body: SessionRequest) -> Whoami:
    """Exchange a token for a session's cookie."""
    cookies.check_origin(request, ctx.public_url, must_say=False)
    try:
        cookie, caller = ctx.access.sign_in(body.token)
    except Unauthenticated as error:
        ctx.attempts.note(body.token.strip(), address_of(request), error.detail)
        raise
    cookies.write(response, cookie, secure=ctx.secure)
    return whoami(caller, csrf_of(cookie))


@router.delete(
    "",
    dependencies=[Depends(AnyToken())],
    status_code=status.HTTP_204_NO_CONTENT,
    operation_id="end_session",
)
def end(ctx: Ctx, caller: Caller, response: Response) -> None:
    """End the session that the cookie names."""
    ctx.access.sign_out(caller)
    cookies.remove(response, secure=ctx.secure)
