"""Routes of the transfer."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from orchestrator.api.context import Ctx, Needs
from schemas.access import Scope
from schemas.api import Page, TransferProcess

operator = APIRouter(
    prefix="/v1/transfers", tags=["devices"], dependencies=[Depends(Needs(Scope.DEVICES_READ))]
)


@operator.get("", operation_id="list_transfers")
def ls(ctx: Ctx) -> Page[TransferProcess]:
    """Processes that answer requests for chunks: this server's own first; all on one page."""
    return Page(items=tuple(ctx.transfers()), next=None)
