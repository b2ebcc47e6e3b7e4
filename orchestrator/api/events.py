"""What happens, as server-sent events, and whether all is well."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from orchestrator.api.context import Allow, Context, Ctx
from orchestrator.services.keys import Role
from orchestrator.version import VERSION
from schemas.api import Event, Health
from schemas.base import MAX_INTEGER

operator = APIRouter(prefix="/v1", tags=["events"], dependencies=[Depends(Allow(Role.ADMIN))])
public = APIRouter(prefix="/v1", tags=["health"])

_POLL_SECONDS = 0.2
_PAGE = 500


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


@operator.get("/events", operation_id="stream_events", response_class=EventSourceResponse)
async def stream(
    ctx: Ctx,
    last: Annotated[int, Depends(_start)],
    subject: Annotated[str | None, Query(max_length=64)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Events after ``Last-Event-ID`` or ``after``; from now on when neither is given."""
    while not ctx.stopping.is_set():
        events = await to_thread.run_sync(_fetch, ctx, last, subject)
        for event in events:
            last = event.id
            yield ServerSentEvent(data=event, id=str(event.id), event=event.kind)
        if not events:
            await anyio.sleep(_POLL_SECONDS)


def _fetch(ctx: Context, last: int, subject: str | None) -> Sequence[Event]:
    with ctx.uow.read() as tx:
        return tx.events.after(last, subject, _PAGE)
