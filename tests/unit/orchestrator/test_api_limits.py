"""Bodies: bounded in size, in time, and all of them together; and what answers tell browsers."""

from __future__ import annotations

import json
import math

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from orchestrator.api import limits
from orchestrator.api.problems import RequestNames
from schemas.errors import Code, Problem

KEY = (b"authorization", b"Bearer x")


async def reads_all(scope, receive, send):
    """An application that reads the body and answers with its size."""
    from fastapi import HTTPException

    request = Request(scope, receive)
    try:
        answer = PlainTextResponse(str(len(await request.body())))
    except HTTPException as error:
        answer = PlainTextResponse(error.detail, error.status_code)
    await answer(scope, receive, send)


async def refuses(scope, receive, send):
    await PlainTextResponse("no", 401)(scope, receive, send)


class Client:
    """Sends pieces; after the last it goes on for ever without a word, unless that was the end."""

    def __init__(self, *pieces: bytes, end: bool = True) -> None:
        self.pieces, self.end, self.asked = list(pieces), end, 0
        self.sent: list[dict] = []

    async def receive(self):
        self.asked += 1
        if not self.pieces:
            await anyio.sleep_forever()
        body = self.pieces.pop(0)
        return {
            "type": "http.request",
            "body": body,
            "more_body": bool(self.pieces) or not self.end,
        }

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def closes(self) -> bool:
        return (b"connection", b"close") in self.sent[0]["headers"]

    @property
    def text(self) -> str:
        return b"".join(m.get("body", b"") for m in self.sent[1:]).decode()


def call(client, *headers, app=reads_all, guard=None, method="POST", path="/v1/jobs"):
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(b"transfer-encoding", b"chunked"), *headers],
        "query_string": b"",
    }
    guard = guard or limits.BodyLimits(app)
    anyio.run(guard, scope, client.receive, client.send)
    assert guard.reading == 0
    return client


def test_a_body_within_the_limits_passes_and_keeps_the_connection():
    client = call(Client(b"a" * 1000, b"b" * 24), KEY)
    assert (client.status, client.text, client.closes) == (200, "1024", False)


@pytest.mark.parametrize(
    ("headers", "limit"), [([KEY], limits.MAX_BODY), ([], limits.MAX_ANONYMOUS_BODY)]
)
def test_a_body_beyond_the_limit_ends_there(headers, limit):
    assert call(Client(b"x" * limit), *headers).status == 200
    assert call(Client(b"x" * limit, b"y"), *headers).status == 413


def test_what_is_announced_as_too_large_is_refused_unread():
    declared = (b"content-length", b"99999999999")
    client = call(Client(end=False), KEY, declared, (b"expect", b"100-continue"))
    assert (client.status, client.closes, client.asked) == (413, True, 0)
    assert Problem.model_validate(json.loads(client.text)).code is Code.TOO_LARGE


def test_a_body_that_stalls_is_given_up(monkeypatch):
    monkeypatch.setattr(limits, "_LINGER_SECONDS", 0.01)
    client = call(Client(b"{", end=False), KEY, guard=limits.BodyLimits(reads_all, grace=0.05))
    assert (client.status, client.closes) == (408, True)
    assert "too slowly: 1 bytes" in client.text


def test_a_body_that_trickles_is_given_up(monkeypatch):
    monkeypatch.setattr(limits, "_LINGER_SECONDS", 0.01)

    class Trickle(Client):
        async def receive(self):
            await anyio.sleep(0.02)
            return {"type": "http.request", "body": b"x", "more_body": True}

    client = call(Trickle(), KEY, guard=limits.BodyLimits(reads_all, grace=0.1))
    assert (client.status, client.closes) == (408, True)


def test_a_large_body_may_take_as_long_as_its_bytes_allow(monkeypatch):
    monkeypatch.setattr(limits, "MIN_BYTES_PER_SECOND", 10_000)

    class Steady(Client):
        async def receive(self):
            await anyio.sleep(0.02)
            return await super().receive()

    pieces = [b"x" * 1000] * 10
    client = call(Steady(*pieces), KEY, guard=limits.BodyLimits(reads_all, grace=0.05))
    assert (client.status, client.text) == (200, "10000")


def test_an_upload_is_not_bounded_here():
    piece = b"x" * 1024**2
    client = call(Client(*[piece] * 9), KEY, method="PUT", path="/v1/artifacts/" + "0" * 64)
    assert client.status == 200


def test_all_bodies_together_have_a_limit(monkeypatch):
    monkeypatch.setattr(limits, "MAX_READING", 100)
    assert call(Client(b"x" * 100), KEY).status == 200
    assert call(Client(b"x" * 101), KEY).status == 503


def test_a_refusal_before_the_body_was_read_ends_the_connection(monkeypatch):
    monkeypatch.setattr(limits, "_LINGER_SECONDS", 0.01)
    client = call(Client(b"x", end=False), KEY, app=refuses)
    assert (client.status, client.closes) == (401, True)
    small = call(Client(b"x"), KEY, app=refuses)
    assert (small.status, small.closes) == (401, False)


def test_answers_are_not_framed_guessed_at_or_kept(admin):
    for path in ("/v1/jobs", "/v1/health", "/v1/nothing", "/docs"):
        headers = admin.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["cache-control"] == "no-store", path
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert headers["x-request-id"], path


def test_the_reference_cannot_act_for_its_reader(admin):
    page = admin.get("/docs")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy
    assert "default-src 'none'" in policy
    assert "submit_run" not in page.text
    assert "list_jobs" in page.text


def test_a_failure_that_nobody_caught_is_a_problem_document_too():
    async def breaks(_scope, _receive, _send):
        msg = "broken"
        raise ValueError(msg)

    client = call(Client(b""), KEY, guard=limits.BodyLimits(RequestNames(breaks)))
    assert client.status == 500
    found = Problem.model_validate(json.loads(client.text))
    assert found.code is Code.INTERNAL
    assert "broken" not in client.text
    assert (b"x-request-id", found.request_id.encode()) in client.sent[0]["headers"]


def test_uploads_have_no_limit_of_memory():
    assert limits._limit({"method": "PUT", "path": "/v1/artifacts/x"}, {}) == math.inf
    assert limits._limit({"method": "POST", "path": "/v1/artifacts/x"}, {}) < math.inf
