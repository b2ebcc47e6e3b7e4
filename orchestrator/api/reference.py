"""The API's reference as a page.

It is drawn by a program from a public CDN. So that this never acts in the name of who reads
it, the page carries the specification with it and is sandboxed: its origin is not ours, and it
has neither cookies nor a way to call us.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

router = APIRouter()

_CDN = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/"
_POLICY = (
    "sandbox allow-scripts; default-src 'none'; "
    f"script-src {_CDN} 'unsafe-inline'; style-src {_CDN} 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'"
)


@router.get("/docs", include_in_schema=False, response_class=HTMLResponse)
def page(request: Request) -> HTMLResponse:
    answer = get_swagger_ui_html(
        openapi_url="",
        title=request.app.title,
        swagger_favicon_url="data:,",
        # With the specification at hand nothing is fetched; there is nothing to try it on either.
        swagger_ui_parameters={"spec": request.app.openapi(), "supportedSubmitMethods": []},
    )
    answer.headers["content-security-policy"] = _POLICY
    return answer
