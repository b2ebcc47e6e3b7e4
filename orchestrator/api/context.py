"""What the routes work with, and who may call them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from anyio import CapacityLimiter
from fastapi import Depends, Path, Query, Request

from orchestrator.api import cookies
from orchestrator.api.rates import KNOWN
from orchestrator.errors import Forbidden, Invalid, Unauthenticated
from orchestrator.services import actor
from orchestrator.services.access import AccessService
from orchestrator.services.admission import AdmissionService
from orchestrator.services.agents import AgentService
from orchestrator.services.aliases import AliasService
from orchestrator.services.attempts import FailedAttempts
from orchestrator.services.audit import AuditService
from orchestrator.services.authority import AuthorityService
from orchestrator.services.collection import CollectionService
from orchestrator.services.comparison import ComparisonService
from orchestrator.services.device_classes import DeviceClassService
from orchestrator.services.devices import DeviceService
from orchestrator.services.enrollment import EnrollmentService
from orchestrator.services.experiments import ExperimentService
from orchestrator.services.fleets import FleetService
from orchestrator.services.jobs import JobService
from orchestrator.services.keys import Principal
from orchestrator.services.links import LinkService
from orchestrator.services.models import ModelService
from orchestrator.services.orders import OrderService
from orchestrator.services.ports import Clock, UnitOfWork
from orchestrator.services.renewal import RenewalService
from orchestrator.services.revocation import RevocationService
from orchestrator.services.rollouts import RolloutService
from orchestrator.services.samples import SampleService
from orchestrator.services.telemetry_queries import TelemetryQueries
from orchestrator.services.tokens import TokenService
from orchestrator.services.trust import TrustService
from orchestrator.services.uploads import UploadService
from orchestrator.services.why import WhyService
from schemas.access import Role, Scope
from schemas.api import TransferProcess

DEFAULT_PAGE = 50
MAX_PAGE = 500
MAX_UPLOADS = 8
"""At once; more wait."""


class Metrics(Protocol):
    """Counts what the server does, and says it as Prometheus reads it."""

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request more. route: its template, without any id."""
        ...

    def text(self, health: Mapping[str, str]) -> bytes:
        """Everything, in the text format."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """Everything the API calls.

    health: the state of each part by name ("ok" or what is wrong). stopping: set when
    the server ends, so that streams end too. uploading: the threads that uploads may hold.
    public_url: how browsers and devices reach the API. transfers: the processes that answer
    requests for chunks.
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
    tokens: TokenService
    enrollment: EnrollmentService
    renewals: RenewalService
    admission: AdmissionService
    device_classes: DeviceClassService
    fleets: FleetService
    why: WhyService
    rollouts: RolloutService
    experiments: ExperimentService
    telemetry: TelemetryQueries
    samples: SampleService
    metrics: Metrics
    uploads: UploadService
    links: LinkService
    collection: CollectionService
    access: AccessService
    audit: AuditService
    attempts: FailedAttempts
    public_url: str
    authority: AuthorityService
    trust: TrustService
    health: Callable[[], dict[str, str]]
    transfers: Callable[[], Sequence[TransferProcess]] = tuple
    stopping: threading.Event = field(default_factory=threading.Event)
    uploading: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(MAX_UPLOADS))

    @property
    def secure(self) -> bool:
        """Whether browsers reach the API by TLS: its cookies are then for TLS alone."""
        return self.public_url.startswith("https://")


def context(request: Request) -> Context:
    """The application's context."""
    found: Context = request.app.state.context
    return found


Ctx = Annotated[Context, Depends(context)]


def principal(request: Request, ctx: Ctx) -> Principal:
    """Who calls, by the bearer token, or by the page's cookie where there is none.

    Raises:
        Unauthenticated: there is neither, or it is not good.
        Forbidden: a change by cookie that is not the page's own (``api.cookies``).
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else None
    cookie = cookies.read(request, secure=ctx.secure) if not bearer else None
    try:
        caller = ctx.access.resume(cookie) if cookie else ctx.access.authenticate(bearer)
    except Unauthenticated as error:
        ctx.attempts.note(bearer, address_of(request), error.detail)
        raise
    if cookie:
        cookies.check_own(request, cookie, ctx.public_url)
    request.scope[KNOWN] = True
    return caller


def address_of(request: Request) -> str:
    """The address that a request came from, for the log."""
    return request.client.host if request.client else "nowhere"


Caller = Annotated[Principal, Depends(principal)]


class Guard:
    """A dependency that says who may call a route; a route without one is not served.

    A coroutine, so that it runs in the task of the request, whose thread for the handler
    then sees who acts (``services.actor``).
    """

    async def __call__(self, caller: Caller) -> None:
        """Check the caller, and act in their name from here on.

        Raises:
            Forbidden: they may not do this.
        """
        self.check(caller)
        actor.become(caller.actor)

    def check(self, caller: Principal) -> None:
        """Raise ``Forbidden`` unless the caller may do this."""
        raise NotImplementedError


class Allow(Guard):
    """Lets programs in, by their role.

    Args:
        roles: who may call.
    """

    def __init__(self, *roles: Role) -> None:
        self.roles = frozenset(roles)

    def check(self, caller: Principal) -> None:
        """See ``Guard``."""
        if caller.role not in self.roles:
            msg = f"a token of role {caller.role} may not do this"
            raise Forbidden(msg)


class Needs(Guard):
    """Lets in whoever has a scope, and programs where they may do the same.

    Args:
        scope: the right that it takes.
        also: other rights, or roles of programs, of which each is enough too.
    """

    def __init__(self, scope: Scope, *also: Scope | Role) -> None:
        self.scopes = frozenset({scope, *(one for one in also if isinstance(one, Scope))})
        self.roles = frozenset(one for one in also if isinstance(one, Role))

    def check(self, caller: Principal) -> None:
        """See ``Guard``."""
        if caller.scopes & self.scopes or caller.role in self.roles:
            return
        needed = " or ".join(sorted(self.scopes))
        msg = f"this needs the right {needed}, which this token ({caller.role}) does not have"
        hint = (
            "`argosy whoami` shows what it has; an admin makes one with `argosy api-token create`"
        )
        raise Forbidden(msg, hint=hint)


class AnyToken(Guard):
    """Lets in whoever has a token that works, or a session."""

    def check(self, caller: Principal) -> None:
        """See ``Guard``: everybody may."""


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
