"""What the routes work with, and who may call them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Path, Query, Request

from orchestrator.errors import Forbidden, Invalid
from orchestrator.services import keys
from orchestrator.services.agents import AgentService
from orchestrator.services.aliases import AliasService
from orchestrator.services.collection import CollectionService
from orchestrator.services.comparison import ComparisonService
from orchestrator.services.device_classes import DeviceClassService
from orchestrator.services.devices import DeviceService
from orchestrator.services.jobs import JobService
from orchestrator.services.keys import Principal, Role
from orchestrator.services.models import ModelService
from orchestrator.services.orders import OrderService
from orchestrator.services.ports import Clock, UnitOfWork
from orchestrator.services.revocation import RevocationService
from orchestrator.services.rollouts import RolloutService
from orchestrator.services.telemetry import TelemetryService
from orchestrator.services.uploads import UploadService

DEFAULT_PAGE = 50
MAX_PAGE = 500
MAX_UPLOADS = 8
"""At once; more wait."""


@dataclass(frozen=True, slots=True)
class Context:
    """Everything the API calls.

    health: the state of each part by name ("ok" or what is wrong). stopping: set when
    the server ends, so that streams end too. uploading: the threads that uploads may hold.
    """

    uow: UnitOfWork
    clock: Clock
    jobs: JobService
    orders: OrderService
    agents: AgentService
    models: ModelService
    aliases: AliasService
    comparison: ComparisonService
    revocation: RevocationService
    devices: DeviceService
    device_classes: DeviceClassService
    rollouts: RolloutService
    telemetry: TelemetryService
    uploads: UploadService
    collection: CollectionService
    ca_pem: str
    root_json: str
    health: Callable[[], dict[str, str]]
    stopping: threading.Event = field(default_factory=threading.Event)
    uploading: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(MAX_UPLOADS))


def context(request: Request) -> Context:
    """The application's context."""
    found: Context = request.app.state.context
    return found


Ctx = Annotated[Context, Depends(context)]


def principal(request: Request, ctx: Ctx) -> Principal:
    """Who calls, by the bearer token.

    Raises:
        Unauthenticated: there is no token, or not a good one.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else None
    with ctx.uow.read() as tx:
        return keys.authenticate(tx, bearer, ctx.clock())


Caller = Annotated[Principal, Depends(principal)]


class Allow:
    """A dependency that lets some roles in and no others.

    Args:
        roles: who may call.
    """

    def __init__(self, *roles: Role) -> None:
        self.roles = frozenset(roles)

    def __call__(self, caller: Caller) -> None:
        """Check the caller.

        Raises:
            Forbidden: the caller's role is not among them.
        """
        if caller.role not in self.roles:
            msg = f"a key of role {caller.role} may not do this"
            raise Forbidden(msg)


def own_job(caller: Caller, job_id: Annotated[str, Path()]) -> None:
    """Let a job's key act on that job alone.

    Raises:
        Forbidden: it is another job's.
    """
    if caller.subject != job_id:
        msg = "a job's key may report on that job alone"
        raise Forbidden(msg)


Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str | None, Query(max_length=100)]


def number(cursor: str | None, default: int) -> int:
    """A cursor that is a whole number.

    Raises:
        Invalid: it is not one.
    """
    if cursor is None:
        return default
    try:
        return int(cursor)
    except ValueError as error:
        msg = f"cursor: {cursor!r} is not one that this listing gave"
        raise Invalid(msg) from error
