"""``GET /metrics`` for Prometheus, and what counts requests for it."""

from __future__ import annotations

import time

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.context import Ctx, Needs
from schemas.access import Scope as Right

router = APIRouter(tags=["telemetry"])

_READ = [Depends(Needs(Right.TELEMETRY_READ))]
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_TEXT = {"text/plain": {"schema": {"type": "string"}}}


@router.get(
    "/metrics",
    dependencies=_READ,
    operation_id="get_metrics",
    response_class=Response,
    responses={200: {"description": "Prometheus' text format.", "content": _TEXT}},
)
def metrics(ctx: Ctx) -> Response:
    """What the server counts, without any device's name."""
    return Response(ctx.metrics.text(ctx.health()), media_type=CONTENT_TYPE_LATEST)


class Timed:
    """Counts each request by its route's template, once it is answered.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            # Whatever no route took has no template: a stranger's paths make no labels.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = time.perf_counter() - began
            scope["app"].state.context.metrics.answered(method, route, status, seconds)
