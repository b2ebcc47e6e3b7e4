"""The application: all routes, closed unless a router says otherwise."""

from __future__ import annotations

from fastapi import FastAPI

from orchestrator.api import (
    agents,
    aliases,
    artifacts,
    device_classes,
    devices,
    events,
    job_history,
    jobs,
    models,
    problems,
    rollouts,
)
from orchestrator.api.context import Context
from orchestrator.version import VERSION

OPEN_PATHS = frozenset(
    {
        "/v1/health",
        "/v1/enroll",
        "/v1/trust/ca.pem",
        "/v1/trust/root.json",
        "/openapi.json",
        "/docs",
    }
)
"""Paths that answer without a key; a test holds every other route to be closed."""


def make_app(context: Context) -> FastAPI:
    """The application over a context."""
    app = FastAPI(
        title="Argosy",
        version=VERSION,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        description="Training jobs, model versions, devices, rollouts and telemetry.",
    )
    app.state.context = context
    problems.install(app)
    for router in (
        events.public,
        devices.public,
        jobs.operator,
        job_history.router,
        jobs.agent,
        jobs.driver,
        agents.operator,
        models.operator,
        aliases.router,
        models.writer,
        artifacts.operator,
        artifacts.writer,
        devices.operator,
        device_classes.operator,
        rollouts.router,
        events.operator,
    ):
        app.include_router(router)
    return app
