"""What happens, as server-sent events, and whether all is well."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from orchestrator.api.context import Allow, Context, Ctx
from orchestrator.errors import Invalid
from orchestrator.services.keys import Role
from orchestrator.version import VERSION
from schemas.api import Event, Health

operator = APIRouter(prefix="/v1", tags=["events"], dependencies=[Depends(Allow(Role.ADMIN))])
public = APIRouter(prefix="/v1", tags=["health"])

_POLL_SECONDS = 0.2
_PAGE = 500


@public.get("/health", operation_id="get_health")
def health(ctx: Ctx) -> Health:
    """Whether every part is up."""
    parts = ctx.health()
    return Health(ok=all(v == "ok" for v in parts.values()), version=VERSION, parts=parts)


@operator.get("/events", operation_id="stream_events", response_class=EventSourceResponse)
async def stream(
    ctx: Ctx,
    subject: Annotated[str | None, Query(max_length=64)] = None,
    after: Annotated[int | None, Query(ge=0)] = None,
    last_event_id: Annotated[str | None, Header(max_length=32)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Events after ``Last-Event-ID`` or ``after``; from now on when neither is given."""
    last = await to_thread.run_sync(_start, ctx, after, last_event_id)
    while not ctx.stopping.is_set():
        events = await to_thread.run_sync(_fetch, ctx, last, subject)
        for event in events:
            last = event.id
            yield ServerSentEvent(data=event, id=str(event.id), event=event.kind)
        if not events:
            await anyio.sleep(_POLL_SECONDS)


def _start(ctx: Context, after: int | None, last_event_id: str | None) -> int:
    if last_event_id is not None:
        if not last_event_id.isascii() or not last_event_id.isdigit():
            msg = "Last-Event-ID: not the id of an event"
            raise Invalid(msg)
        return int(last_event_id)
    if after is not None:
        return after
    with ctx.uow() as tx:
        return tx.events.last_id()


def _fetch(ctx: Context, last: int, subject: str | None) -> Sequence[Event]:
    with ctx.uow() as tx:
        return tx.events.after(last, subject, _PAGE)
