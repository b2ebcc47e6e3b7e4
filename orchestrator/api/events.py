"""What happens, as server-sent events, and whether all is well."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from orchestrator.api.context import Caller, Context, Ctx, Needs
from orchestrator.services import keys
from orchestrator.services.keys import Principal
from orchestrator.version import VERSION
from schemas.access import Scope
from schemas.api import Event, Health
from schemas.base import MAX_INTEGER

operator = APIRouter(prefix="/v1", tags=["events"])
public = APIRouter(prefix="/v1", tags=["health"])

SCOPE_OF = {
    "job": Scope.JOBS_READ,
    "live": Scope.JOBS_READ,
    "rollout": Scope.ROLLOUTS_READ,
    "experiment": Scope.ROLLOUTS_READ,
    "wave": Scope.ROLLOUTS_READ,
    "execution": Scope.ROLLOUTS_READ,
    "device": Scope.DEVICES_READ,
    "model": Scope.MODELS_READ,
}
"""Who may read which kind of event; a kind that is not here is for those who read the audit log."""

_WATCH = [
    Depends(
        Needs(Scope.JOBS_READ, Scope.ROLLOUTS_READ, Scope.DEVICES_READ, Scope.MODELS_READ),
    )
]
_POLL_SECONDS = 0.2
_KEEPALIVE_SECONDS = 15.0
_PAGE = 500
_STREAM = "text/event-stream"
_UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@public.get("/health", operation_id="get_health")
def health(ctx: Ctx) -> Health:
    """Whether every part is up."""
    parts = ctx.health()
    return Health(ok=all(v == "ok" for v in parts.values()), version=VERSION, parts=parts)


def _start(
    ctx: Ctx,
    after: Annotated[int | None, Query(ge=0, le=MAX_INTEGER)] = None,
    last_event_id: Annotated[str | None, Header(pattern="^[0-9]{1,18}$")] = None,
) -> int:
    """The id after which a stream goes on, found before the stream begins.

    Events between may be gone: live ones that were replaced, and old ones. An id beyond
    the newest is of another database, and would make the reader wait for nothing.
    """
    with ctx.uow.read() as tx:
        newest = tx.events.last_id()
    seen = after if last_event_id is None else int(last_event_id)
    return newest if seen is None else min(seen, newest)


@operator.get(
    "/events",
    dependencies=_WATCH,
    operation_id="stream_events",
    response_class=StreamingResponse,
    responses={200: {"content": {_STREAM: {"schema": {"type": "string"}}}}},
)
async def stream(
    ctx: Ctx,
    caller: Caller,
    last: Annotated[int, Depends(_start)],
    subject: Annotated[str | None, Query(max_length=64)] = None,
    kind: Annotated[str | None, Query(max_length=32)] = None,
) -> StreamingResponse:
    """Events after ``Last-Event-ID`` or ``after``; from now on when neither is given.

    Of the kinds that the caller may read; it ends when the token does.
    """
    pages = _pages(ctx, caller, last, subject, kind)
    # FastAPI's own response encodes item by item, from a function that yields them.
    return StreamingResponse(pages, headers=_UNBUFFERED, media_type=_STREAM)


async def _pages(
    ctx: Context, caller: Principal, last: int, subject: str | None, kind: str | None
) -> AsyncIterator[bytes]:
    """What there is at each look, in one piece: of a rollout it is thousands a second."""
    quiet = anyio.current_time()
    while not ctx.stopping.is_set():
        page = await to_thread.run_sync(_fetch, ctx, caller, last, subject, kind)
        if page is None:
            return
        text, last, full = page
        now = anyio.current_time()
        if text or now - quiet >= _KEEPALIVE_SECONDS:
            quiet = now
            yield text or KEEPALIVE_COMMENT
        if not full:
            await anyio.sleep(_POLL_SECONDS)


def _fetch(
    ctx: Context, caller: Principal, last: int, subject: str | None, kind: str | None
) -> tuple[bytes, int, bool] | None:
    """What happened since, up to which id, and whether there is more at once.

    None once the caller's token or session has ended.
    """
    with ctx.uow.read() as tx:
        if not keys.stands(tx, caller, ctx.clock()):
            return None
        events = tx.events.after(last, subject, _PAGE, kind)
        full = len(events) == _PAGE
        # What is of no interest is not looked through again.
        last = events[-1].id if full else max(last, tx.events.last_id())
    readable = (e for e in events if SCOPE_OF.get(e.kind, Scope.AUDIT_READ) in caller.scopes)
    return b"".join(map(_encoded, readable)), last, full


def _encoded(event: Event) -> bytes:
    return format_sse_event(data_str=event.model_dump_json(), event=event.kind, id=str(event.id))
