"""Who may call what: every route, by every role and without a token, against a table by hand."""

from __future__ import annotations

import pytest
from fastapi import APIRouter

from orchestrator.api.app import OPEN_ROUTES, check_guarded
from orchestrator.api.body import StrictRoute
from schemas.access import Role
from tests.unit.orchestrator.platform import Platform

JOB, WORKER = Role.JOB, Role.WORKER
ADMINS = {Role.ADMIN}
RELEASERS = {Role.RELEASER} | ADMINS
WRITERS = {Role.OPERATOR} | RELEASERS
READERS = {Role.VIEWER} | WRITERS
EVERYBODY = set(Role)
OPEN = None

TABLE = {
    "GET /v1/health": OPEN,
    "GET /v1/trust/ca.pem": OPEN,
    "GET /v1/trust/root.json": OPEN,
    "GET /v1/trust/crl.pem": OPEN,
    "GET /v1/trust/metadata/{name}": OPEN,
    "GET /v1/files/{sha256}": OPEN,
    "POST /v1/enroll": OPEN,
    "POST /v1/renew": OPEN,
    "POST /v1/session": OPEN,
    "GET /docs": OPEN,
    "DELETE /v1/session": EVERYBODY,
    "GET /v1/whoami": EVERYBODY,
    "POST /v1/jobs": WRITERS,
    "GET /v1/jobs": READERS,
    "GET /v1/jobs/{job_id}": READERS,
    "GET /v1/jobs/{job_id}/metrics": READERS,
    "GET /v1/jobs/{job_id}/logs": READERS,
    "GET /v1/jobs/{job_id}/profile": READERS,
    "POST /v1/jobs/{job_id}/cancel": WRITERS,
    "GET /v1/agents": READERS,
    "POST /v1/worker/claim": {WORKER},
    "POST /v1/worker/jobs/{job_id}/heartbeat": {WORKER},
    "POST /v1/worker/jobs/{job_id}/outcome": {WORKER},
    "GET /v1/jobs/{job_id}/order": {JOB},
    "POST /v1/jobs/{job_id}/progress": {JOB},
    "PUT /v1/artifacts/{sha256}": WRITERS | {JOB},
    "GET /v1/artifacts/{sha256}": READERS | {JOB},
    "POST /v1/artifacts/collect": WRITERS,
    "POST /v1/models/{name}/versions": WRITERS | {JOB},
    "GET /v1/models": READERS,
    "GET /v1/models/{name}": READERS,
    "GET /v1/models/{name}/versions/{version}": READERS,
    "GET /v1/models/{name}/compare": READERS,
    "PUT /v1/models/{name}/versions/{version}/note": WRITERS,
    "POST /v1/models/{name}/versions/{version}/revoke": RELEASERS,
    "PUT /v1/models/{name}/aliases/{alias}": RELEASERS,
    "DELETE /v1/models/{name}/aliases/{alias}": RELEASERS,
    "GET /v1/models/{name}/aliases/{alias}/history": READERS,
    "GET /v1/device-classes": READERS,
    "GET /v1/device-classes/{name}": READERS,
    "PUT /v1/device-classes/{name}": WRITERS,
    "DELETE /v1/device-classes/{name}": WRITERS,
    "GET /v1/fleets": READERS,
    "GET /v1/fleets/{name}": READERS,
    "PUT /v1/fleets/{name}": WRITERS,
    "DELETE /v1/fleets/{name}": WRITERS,
    "POST /v1/tokens": WRITERS,
    "GET /v1/tokens": READERS,
    "POST /v1/tokens/{token_id}/revoke": WRITERS,
    "GET /v1/devices": READERS,
    "GET /v1/transfers": READERS,
    "GET /v1/devices/{device_id}": READERS,
    "GET /v1/devices/{device_id}/why": READERS,
    "PUT /v1/devices/{device_id}/tags": WRITERS,
    "PATCH /v1/devices/{device_id}/tags": WRITERS,
    "PATCH /v1/devices/tags": WRITERS,
    "POST /v1/devices/{device_id}/approve": WRITERS,
    "POST /v1/devices/{device_id}/reject": WRITERS,
    "POST /v1/devices/{device_id}/revoke": WRITERS,
    "POST /v1/devices/{device_id}/clear-alert": WRITERS,
    "GET /v1/trust": READERS,
    "POST /v1/trust/metadata": ADMINS,
    "GET /v1/authority": READERS,
    "POST /v1/authority/rotate": ADMINS,
    "POST /v1/authority/retire": ADMINS,
    "POST /v1/api-tokens": ADMINS,
    "GET /v1/api-tokens": ADMINS,
    "POST /v1/api-tokens/{token_id}/revoke": ADMINS,
    "GET /v1/audit": ADMINS,
    "POST /v1/rollouts": RELEASERS,
    "GET /v1/rollouts": READERS,
    "GET /v1/rollouts/{rollout_id}": READERS,
    "PATCH /v1/rollouts/{rollout_id}": RELEASERS,
    "GET /v1/rollouts/{rollout_id}/executions": READERS,
    "POST /v1/rollouts/{rollout_id}/retry": RELEASERS,
    "POST /v1/rollouts/{rollout_id}/{act}": RELEASERS,
    "POST /v1/experiments": RELEASERS,
    "GET /v1/experiments": READERS,
    "GET /v1/experiments/{experiment_id}": READERS,
    "POST /v1/experiments/{experiment_id}/stop": RELEASERS,
    "GET /v1/telemetry/summary": READERS,
    "GET /v1/telemetry/series": READERS,
    "GET /v1/telemetry/features": READERS,
    "GET /v1/telemetry/samples": WRITERS,
    "GET /metrics": READERS,
    "GET /v1/events": READERS,
}

VALUES = {
    "{sha256}": "0" * 64,
    "{version}": "1",
    "{act}": "start",
    "{name}": "x",
    "{alias}": "x",
    "{job_id}": "x",
    "{device_id}": "x",
    "{token_id}": "x",
    "{rollout_id}": "x",
    "{experiment_id}": "x",
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    """One for the whole walk, which changes nothing."""
    made = Platform(tmp_path_factory.mktemp("rights"))
    made.stopping.set()  # streams end at once
    return made


@pytest.fixture(scope="module")
def served(platform):
    """Every route of the application, as ``METHOD path``, sorted."""
    paths = platform.app.openapi()["paths"]
    return sorted(
        f"{method.upper()} {path}" for path, methods in paths.items() for method in methods
    )


def call(client, route):
    method, path = route.split(" ")
    for name, value in VALUES.items():
        path = path.replace(name, value)
    assert "{" not in path, f"the walk does not know how to fill {path}"
    return client.request(method, path, json={}).status_code


def test_the_table_has_every_route_and_no_other(served):
    assert {*served, "GET /docs"} == set(TABLE)


def test_the_open_routes_are_those_of_the_table():
    assert {route for route, who in TABLE.items() if who is OPEN} == OPEN_ROUTES


@pytest.mark.parametrize("role", Role)
def test_a_role_may_call_what_the_table_says_and_nothing_else(platform, served, role):
    token = platform.key(role, "x" if role is JOB else None)
    with platform.client(token) as client:
        for route in served:
            status, may = call(client, route), TABLE[route]
            assert status != 401 or may is OPEN, route
            assert (status != 403) == (may is OPEN or role in may), (route, status)


def test_nothing_that_is_closed_answers_without_a_token(platform, served):
    with platform.client() as client:
        for route in served:
            if TABLE[route] is not OPEN:
                assert call(client, route) == 401, route


def test_a_route_without_a_guard_makes_no_application():
    router = APIRouter(route_class=StrictRoute)
    router.add_api_route("/v1/forgotten", lambda: None, methods=["POST"])
    with pytest.raises(TypeError, match="POST /v1/forgotten"):
        check_guarded(router)


def test_a_router_within_a_router_cannot_hide_a_route():
    outer, inner = APIRouter(), APIRouter()
    inner.add_api_route("/v1/hidden", lambda: None)
    outer.include_router(inner)
    with pytest.raises(TypeError, match="who may call it"):
        check_guarded(outer)
