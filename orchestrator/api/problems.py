"""Every refusal as a problem document (RFC 9457), and every request with an id."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.errors import HTTP_STATUS, ArgosyError
from orchestrator.services import actor
from schemas.errors import PROBLEM_TYPE, Code, FieldError, Problem

log = logging.getLogger(__name__)

_HTTP_CODES = {
    404: Code.NOT_FOUND,
    405: Code.INVALID,
    401: Code.UNAUTHENTICATED,
    403: Code.FORBIDDEN,
    408: Code.TIMED_OUT,
    413: Code.TOO_LARGE,
    503: Code.UNAVAILABLE,
}


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""
    app.add_exception_handler(ArgosyError, _on_argosy_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def problem(
    request: Request,
    code: Code,
    detail: str,
    *,
    status: int | None = None,
    hint: str | None = None,
    errors: Sequence[FieldError] = (),
) -> JSONResponse:
    """A problem document as a response."""
    body = Problem(
        title=code.replace("_", " "),
        status=status or HTTP_STATUS[code],
        code=code,
        detail=detail,
        hint=hint,
        errors=tuple(errors),
        request_id=request.scope.get("request_id"),
    )
    return JSONResponse(
        body.model_dump(mode="json", exclude_none=True), body.status, media_type=PROBLEM_TYPE
    )


def _on_argosy_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, ArgosyError):
        return _on_anything(request, error)
    return problem(request, error.code, error.detail, hint=error.hint, errors=error.fields)


def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    errors = [_field_error(item) for item in found]
    first = f"{errors[0].field}: {errors[0].message}" if errors else "the request is malformed"
    return problem(request, Code.INVALID, first, errors=errors)


def _field_error(item: dict[str, Any]) -> FieldError:
    message = str(item["msg"]).removeprefix("Value error, ")
    parts = [str(part) for part in item["loc"] if part not in {"body", "query", "path"}]
    return FieldError(field=".".join(parts) or "body", message=message)


def _on_http(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(error.detail) if isinstance(error, HTTPException) else "failed"
    code = _HTTP_CODES.get(status, Code.INTERNAL if status >= 500 else Code.INVALID)  # noqa: PLR2004 - HTTP
    text = f"{detail}: {request.method} {request.url.path}"
    return problem(request, code, text, status=status)


def _on_anything(request: Request, error: Exception) -> JSONResponse:
    request_id = request.scope.get("request_id")
    log.error("request %s failed", request_id, exc_info=error)
    detail = f"the server failed on this request; its log names it {request_id}"
    return problem(request, Code.INTERNAL, detail)


class RequestNames:
    """Names each request, and answers what nobody caught.

    Args:
        app: what comes behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its id in the scope and in the answer's header."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope["request_id"] = request_id
        # Sent right behind another on one connection, it would begin as that one's actor.
        actor.become(actor.PLATFORM)
        started = False

        async def named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        if "\0" in scope["path"] or b"%00" in scope.get("query_string", b""):
            # No name has one, and PostgreSQL takes none in any text.
            refusal = problem(Request(scope), Code.INVALID, "the address holds a NUL character")
            await refusal(scope, receive, named)
            return
        try:
            await self._app(scope, receive, named)
        except Exception as error:
            # Here, and not by the framework: its own answer would go around the headers.
            if started:
                raise
            await _on_anything(Request(scope), error)(scope, receive, named)
