"""Sessions of the page: a cookie that scripts cannot read, and other sites cannot use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.api.events import _fetch
from orchestrator.services.access import MAX_SESSIONS
from orchestrator.services.keys import Principal
from schemas.access import Role

OWN = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def secure_platform(platform):
    """One that browsers reach by HTTPS."""
    context = platform.app.state.context
    platform.app.state.context = replace(context, public_url="https://testserver")
    return platform


def sign_in(platform, role=Role.ADMIN, **headers):
    """A client with a session and no token; what whoami said, and the answer."""
    token = platform.key(role)
    client = platform.client()
    answer = client.post("/v1/session", json={"token": token}, headers=headers)
    return client, answer


def test_a_token_is_exchanged_for_a_cookie_that_scripts_cannot_read(platform):
    client, answer = sign_in(platform)
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("argosy=")
    for part in ("httponly", "samesite=strict", "path=/", "max-age=43200"):
        assert part in cookie
    assert "secure" not in cookie
    assert "domain" not in cookie
    assert client.get("/v1/jobs").status_code == 200
    assert client.get("/v1/whoami").json()["csrf"] == answer.json()["csrf"]


def test_with_tls_the_cookie_is_for_this_host_alone(secure_platform):
    _, answer = sign_in(secure_platform)
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("__host-argosy=")
    assert "secure" in cookie


def test_a_session_has_its_tokens_rights(platform):
    client, answer = sign_in(platform, Role.VIEWER)
    csrf = {"x-argosy-csrf": answer.json()["csrf"], **OWN}
    assert client.get("/v1/jobs").status_code == 200
    assert client.post("/v1/artifacts/collect", json={}, headers=csrf).status_code == 403
    assert client.get("/v1/audit").status_code == 403


@pytest.mark.parametrize("role", [Role.WORKER, Role.JOB])
def test_programs_have_no_sessions(platform, role):
    assert sign_in(platform, role)[1].status_code == 403


FOREIGN = (
    {},
    OWN,
    {"x-argosy-csrf": "CSRF"},
    {"x-argosy-csrf": "wrong", **OWN},
    {"x-argosy-csrf": "é".encode("latin1"), **OWN},
    {"x-argosy-csrf": "CSRF", "sec-fetch-site": "cross-site"},
    {"x-argosy-csrf": "CSRF", "sec-fetch-site": "same-site"},
    {"x-argosy-csrf": "CSRF", "sec-fetch-site": "none"},
    {"x-argosy-csrf": "CSRF", "origin": "http://evil.example"},
    {"x-argosy-csrf": "CSRF", "origin": "null"},
    {"x-argosy-csrf": "CSRF", "origin": "http://testserver.evil.example"},
    {"x-argosy-csrf": "CSRF", "sec-fetch-site": "cross-site", "origin": "http://testserver"},
)


def test_a_change_by_cookie_must_be_the_pages_own(platform):
    client, answer = sign_in(platform)
    csrf = answer.json()["csrf"]

    def status(headers):
        filled = {name: csrf if value == "CSRF" else value for name, value in headers.items()}
        return client.post("/v1/artifacts/collect", json={}, headers=filled).status_code

    for headers in FOREIGN:
        assert status(headers) == 403, headers
    for own in (OWN, {"origin": "http://testserver"}):
        assert status({"x-argosy-csrf": "CSRF", **own}) == 200, own


def test_a_token_needs_no_csrf_and_comes_before_a_cookie(platform):
    client, _ = sign_in(platform, Role.VIEWER)
    bearer = {"authorization": f"Bearer {platform.key(Role.ADMIN)}"}
    assert client.post("/v1/artifacts/collect", json={}, headers=bearer).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}]
)
def test_another_site_cannot_sign_a_visitor_in(platform, headers):
    assert sign_in(platform, **headers)[1].status_code == 403


def test_a_session_ends_by_itself(platform):
    client, _ = sign_in(platform)
    for _ in range(6):
        platform.clock.forward(1.9 * 3600)
        assert client.get("/v1/whoami").status_code == 200
        platform.access.tick()
    platform.clock.forward(0.7 * 3600)
    assert client.get("/v1/whoami").status_code == 401, "after 12 hours"


def test_a_session_that_nobody_uses_ends_after_two_hours(platform):
    client, _ = sign_in(platform)
    platform.clock.forward(7201)
    assert client.get("/v1/whoami").status_code == 401


def test_a_session_ends_with_its_token(platform, admin):
    client, answer = sign_in(platform, Role.VIEWER)
    admin.post(f"/v1/api-tokens/{answer.json()['id']}/revoke")
    assert client.get("/v1/jobs").status_code == 401


def test_signing_out_ends_it_on_the_server(platform):
    client, answer = sign_in(platform)
    kept = client.cookies["argosy"]
    headers = {"x-argosy-csrf": answer.json()["csrf"], **OWN}
    assert client.delete("/v1/session", headers=headers).status_code == 204
    thief = platform.client()
    thief.cookies.set("argosy", kept)
    assert thief.get("/v1/whoami").status_code == 401


def test_only_a_session_can_be_signed_out(admin):
    assert admin.delete("/v1/session").status_code == 422


def test_the_cookie_is_not_in_the_database(platform):
    client, answer = sign_in(platform)
    cookie, csrf = client.cookies["argosy"], answer.json()["csrf"]
    with platform.database.connect() as connection:
        rows = str(connection.exec_driver_sql("SELECT * FROM sessions").all())
    assert cookie not in rows
    assert csrf not in rows


def test_a_token_has_a_bounded_number_of_sessions(platform):
    token = platform.key(Role.VIEWER)
    for _ in range(MAX_SESSIONS + 2):
        platform.access.sign_in(token)
        platform.clock.forward(1)
    with platform.database.connect() as connection:
        (count,) = connection.exec_driver_sql("SELECT count(*) FROM sessions").one()
    assert count == MAX_SESSIONS


def test_a_stream_ends_with_its_token(platform, admin):
    made = admin.post("/v1/api-tokens", json={"name": "v", "role": "viewer"}).json()
    client = platform.client(made["token"])
    admin.post(f"/v1/api-tokens/{made['view']['id']}/revoke")
    with platform.uow.read() as tx:
        record = tx.keys.get(made["view"]["id"])
    caller = Principal(record.id, Role.VIEWER)
    assert _fetch(platform.app.state.context, caller, 0, None, None) is None
    assert client.get("/v1/events").status_code == 401
