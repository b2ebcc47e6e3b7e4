"""How callers are known, and how the API refuses. Who may call what: test_route_rights.py."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.api.problems import RequestNames
from orchestrator.services import actor
from schemas.access import Role
from schemas.errors import PROBLEM_TYPE, Problem


@pytest.mark.parametrize(
    "token", ["nonsense", "arg_key_0000000000000000_" + "x" * 43, "arg_", "\u00e9".encode("latin1")]
)
def test_an_unknown_key_is_refused_with_what_to_do(platform, token):
    header = b"Bearer " + (token if isinstance(token, bytes) else token.encode())
    answer = platform.client().get("/v1/jobs", headers={"authorization": header})
    assert answer.status_code == 401
    assert "ARGOSY_TOKEN" in Problem.model_validate(answer.json()).hint


def test_a_jobs_key_may_report_on_that_job_alone(platform):
    client = platform.client(platform.key(Role.JOB, "job_a"))
    body = {"attempt": 1, "seq": 0}
    assert client.post("/v1/jobs/job_b/progress", json=body).status_code == 403
    assert client.post("/v1/jobs/job_a/progress", json=body).status_code == 404
    assert client.get("/v1/jobs").status_code == 403
    assert client.post("/v1/tokens", json={}).status_code == 403


def test_open_routes_need_no_key(platform):
    client = platform.client()
    assert client.get("/v1/health").json()["ok"] is True
    assert client.get("/v1/trust/ca.pem").text == platform.ca.pem
    assert client.get("/v1/trust/root.json").text == platform.trust.root_json


def test_every_refusal_is_a_problem_document_with_the_requests_id(admin):
    for answer in (
        admin.get("/v1/nothing"),
        admin.delete("/v1/jobs"),
        admin.post("/v1/jobs", content=b"{", headers={"content-type": "application/json"}),
        admin.get("/v1/jobs", params={"limit": 100000}),
        admin.get("/v1/jobs/job_x/logs", params={"cursor": "x"}),
        admin.post("/v1/tokens", json={"ttl_second": 5}),
    ):
        problem = Problem.model_validate(answer.json())
        assert answer.headers["content-type"] == PROBLEM_TYPE
        assert problem.status == answer.status_code
        assert problem.request_id == answer.headers["x-request-id"]


def test_a_body_beyond_the_limit_is_refused(admin):
    answer = admin.post("/v1/jobs", content=b"x" * (8 * 1024**2 + 1))
    assert answer.status_code == 413


def test_operation_ids_are_stable_names(platform):
    ids = [
        operation["operationId"]
        for methods in platform.app.openapi()["paths"].values()
        for operation in methods.values()
    ]
    assert len(ids) == len(set(ids))
    assert all(name.isidentifier() and "_v1" not in name for name in ids)


def test_a_request_begins_as_nobody_whoever_was_served_before_it():
    seen = []

    async def app(scope, receive, send):
        seen.append(actor.current())

    async def serve():
        actor.become("admin:key_0000000000000000")  # as a request left it on the connection
        scope = {"type": "http", "method": "GET", "path": "/v1/enroll", "headers": []}
        await RequestNames(app)(scope, None, None)

    asyncio.run(serve())
    assert seen == [actor.PLATFORM]
