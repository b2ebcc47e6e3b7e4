"""Every route, by people who may not."""

from __future__ import annotations

import socket

import pytest

from schemas.access import SCOPES_OF, Role
from schemas.errors import PROBLEM_TYPE
from tests.attacks.intruder import LOOPBACK

pytestmark = pytest.mark.integration

FILLED = {
    "sha256": "0" * 64, "version": "1", "act": "start", "alias": "champion", "a": "1", "b": "2",
    "job_id": "job_" + "0" * 16, "device_id": "dev_" + "0" * 16, "token_id": "tok_" + "0" * 16,
    "rollout_id": "rol_" + "0" * 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def routes(site) -> list[tuple[str, str]]:
    """Method and path of each route that is not open, with something in each place."""
    from orchestrator.api.app import OPEN_ROUTES

    with site.http() as anybody:
        spec = anybody.get("/openapi.json").json()
    found = []
    for path, methods in spec["paths"].items():
        filled = path
        for part in path.split("/"):
            if part.startswith("{"):
                filled = filled.replace(part, FILLED.get(part.strip("{}"), "x"))
        found += [
            (method.upper(), filled)
            for method in methods
            if f"{method.upper()} {path}" not in OPEN_ROUTES
        ]
    assert len(found) > 50
    return found


def token_of(site, role: Role, **more) -> str:
    with site.http(site.admin_token) as admin:
        made = admin.post(
            "/v1/api-tokens", json={"name": f"walk-{role}-{len(more)}", "role": role, **more}
        )
    assert made.status_code == 201, made.text
    return made.json()["token"]


def walk(client, routes):
    return {(method, path): client.request(method, path, json={}) for method, path in routes}


def test_nothing_answers_without_a_token(site, routes):
    """Nor with a bad one; each from an address of its own, for such a walk is slowed down."""
    bad = f"arg_key_{'0' * 16}_{'x' * 43}"
    for source, token in (("127.0.0.2", None), ("127.0.0.3", bad), ("127.0.0.4", "x")):
        with site.http(token, source=source) as stranger:
            answers = walk(stranger, routes)
        for route, answer in answers.items():
            allowed = {401, 429} if token else {401}
            assert answer.status_code in allowed, (route, answer.text)
            assert answer.headers["content-type"] == PROBLEM_TYPE
        assert next(iter(answers.values())).status_code == 401
    with site.http(site.admin_token) as operator:
        reads = [(m, p) for m, p in routes if m == "GET" and "events" not in p]
        codes = {a.status_code for a in walk(operator, reads).values()}
        assert 200 in codes
        assert not codes & {401, 500}


def test_a_viewer_changes_nothing(site, routes):
    with site.http(token_of(site, Role.VIEWER)) as viewer:
        assert viewer.get("/v1/jobs").status_code == 200
        writes = [(m, p) for m, p in routes if m != "GET"]
        # Without a cookie there is no session of theirs to end: theirs to try, and refused.
        answers = walk(viewer, [r for r in writes if r != ("DELETE", "/v1/session")])
        wrong = {r: a.status_code for r, a in answers.items() if a.status_code != 403}
        assert wrong == {}
        assert viewer.get("/v1/audit").status_code == 403
        assert viewer.get("/v1/api-tokens").status_code == 403


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.RELEASER])
def test_nobody_gives_out_more_than_they_have(site, role):
    for scopes in (None, [s for s in SCOPES_OF[role] if s.endswith(":read")]):
        more = {} if scopes is None else {"scopes": scopes}
        with site.http(token_of(site, role, **more)) as person:
            for body in (
                {"name": "more", "role": "admin"},
                {"name": "more", "role": role},
                {"name": "more", "role": "worker"},
            ):
                assert person.post("/v1/api-tokens", json=body).status_code == 403
            assert person.get("/v1/jobs").status_code == 200


def test_a_workers_token_is_no_persons(site, routes):
    worker = site.home.worker().token
    with site.http(worker) as program:
        answers = walk(program, [r for r in routes if r[1] not in {"/v1/whoami", "/v1/session"}])
        let_in = {r[1] for r, a in answers.items() if a.status_code not in {401, 403}}
        assert let_in
        assert {path for path in let_in if not path.startswith("/v1/worker")} == set()
        assert program.post("/v1/session", json={"token": worker}).status_code == 403


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PATCH", "OPTIONS", "PROPFIND", "get"])
def test_other_methods_open_nothing(site, method):
    with site.http() as anybody:
        assert anybody.get("/v1/health").status_code == 200
        answer = anybody.request(method, "/v1/jobs")
    assert answer.status_code in {400, 401, 404, 405}, answer.text


@pytest.mark.parametrize(
    "target",
    [
        "//v1/jobs", "/v1/./jobs", "/v1/health/../jobs", "/v1/jobs/", "/V1/JOBS", "/v1/jobs%2f",
        "/v1/jobs%00", "/v1/%6aobs", "/v1/jobs;/v1/health", "/v1/jobs?/v1/health",
        "http://x/v1/jobs", "/v1/trust/../devices", "/v1/trust/%2e%2e/devices",
        "/docs/../v1/jobs", "/openapi.json/../v1/tokens",
    ],
)  # fmt: skip
def test_other_spellings_of_a_path_open_nothing(site, target):
    """As raw bytes: a client of ours would put them straight."""
    answers = []
    for shown in ("", f"authorization: Bearer {site.admin_token}\r\n"):
        with socket.create_connection((LOOPBACK, site.port), 10) as sock:
            sock.sendall(
                f"GET {target} HTTP/1.1\r\nhost: x\r\n{shown}connection: close\r\n\r\n".encode()
            )
            found = b""
            while piece := sock.recv(65536):
                found += piece
        answers.append(int(found.split(b" ", 2)[1]))
    assert answers[0] in {307, 400, 401, 404, 405, 422}
    if target in {"/v1/%6aobs", "/v1/jobs?/v1/health"}:
        assert answers[1] == 200, "the control: it is the route, and only the token was missing"
