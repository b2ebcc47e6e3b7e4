"""Bodies as JSON proper: what Python's own reader lets through would be stored, and break later."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response, status
from fastapi.routing import APIRoute
from pydantic_core import from_json


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body, without NaN, halves of surrogate pairs or 200 levels.

        Raises:
            HTTPException: it is not such JSON; with the line and the column.
        """
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            detail = f"the body is not JSON: {error}"
            raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, detail) from None


class StrictRoute(APIRoute):
    """A route that reads its body strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler over a request that is read so."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly
