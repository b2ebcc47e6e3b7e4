"""The application: all routes, closed unless a router says otherwise."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from orchestrator.api import (
    access,
    agents,
    aliases,
    artifacts,
    audit,
    authority,
    device_classes,
    devices,
    enrollment,
    events,
    experiments,
    files,
    fleets,
    headers,
    job_history,
    jobs,
    limits,
    metrics,
    models,
    problems,
    rates,
    reference,
    rollout_edits,
    rollouts,
    session,
    telemetry,
    transfers,
    trust,
)
from orchestrator.api.context import Context, Guard
from orchestrator.version import VERSION

OPEN_ROUTES = frozenset(
    {
        "GET /v1/health",
        "POST /v1/enroll",
        "POST /v1/renew",
        "GET /v1/trust/ca.pem",
        "GET /v1/trust/crl.pem",
        "GET /v1/trust/root.json",
        "GET /v1/trust/metadata/{name}",
        "GET /v1/files/{sha256}",
        "POST /v1/session",
        "GET /docs",
    }
)
"""Routes that answer without a token; every other one needs a guard, or there is no application."""


def make_app(context: Context) -> FastAPI:
    """The application over a context."""
    app = FastAPI(
        title="Argosy",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        description="Training jobs, model versions, devices, rollouts and telemetry.",
    )
    app.state.context = context
    problems.install(app)
    # The last is the outermost: what it adds is on every answer, those of the others too.
    app.add_middleware(limits.BodyLimits)
    app.add_middleware(rates.RateLimits)
    app.add_middleware(problems.RequestNames)
    app.add_middleware(headers.SecurityHeaders)
    app.add_middleware(metrics.Timed)
    for router in (
        events.public,
        enrollment.public,
        jobs.operator,
        job_history.router,
        jobs.agent,
        jobs.driver,
        agents.operator,
        transfers.operator,
        models.router,
        aliases.router,
        artifacts.router,
        files.public,
        devices.router,
        device_classes.router,
        fleets.router,
        rollouts.router,
        experiments.router,
        rollout_edits.router,
        telemetry.router,
        metrics.router,
        access.router,
        session.router,
        audit.router,
        authority.router,
        authority.public,
        events.operator,
        reference.router,
        trust.public,
        trust.router,
    ):
        check_guarded(router)
        app.include_router(router)
    return app


def check_guarded(router: APIRouter) -> None:
    """See that each route says who may call it.

    Raises:
        TypeError: one does not, and is not among ``OPEN_ROUTES``; or is both.
    """
    for route in router.routes:
        if not isinstance(route, APIRoute):
            msg = f"{route!r} is no plain route: who may call it cannot be told"
            raise TypeError(msg)
        guarded = any(isinstance(one.call, Guard) for one in route.dependant.dependencies)
        for method in route.methods or ():
            name = f"{method} {route.path}"
            if guarded == (name in OPEN_ROUTES):
                fault = "is open and guarded" if guarded else "does not say who may call it"
                msg = f"{name} {fault}: give it Needs(Scope.…), or put it into OPEN_ROUTES"
                raise TypeError(msg)
