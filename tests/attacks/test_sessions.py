"""The page's session, seen from another page."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest

pytestmark = pytest.mark.integration

OWN = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def browser(site):
    """Signed in; what the browser would send by itself is the cookie alone."""
    with site.http() as client:
        answer = client.post("/v1/session", json={"token": site.admin_token})
        assert answer.status_code == 200, answer.text
        client.csrf = answer.json()["csrf"]
        client.given = answer.headers["set-cookie"]
        yield client


def change(client, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/v1/tokens", json={}, headers=named).status_code


def test_a_script_cannot_read_the_cookie_and_another_site_cannot_send_it(browser):
    (morsel,) = SimpleCookie(browser.given).values()
    assert morsel["httponly"]
    assert morsel["samesite"].lower() == "strict"
    assert morsel["path"] == "/"
    assert not morsel["domain"]
    assert len(morsel.value) >= 43
    assert browser.csrf not in morsel.value


def test_a_change_by_cookie_must_be_the_pages_own(browser, site):
    assert browser.get("/v1/jobs").status_code == 200
    assert change(browser, x_argosy_csrf=browser.csrf, **OWN) == 201
    assert change(browser, x_argosy_csrf=browser.csrf, origin=site.url) == 201
    for forged in (
        {},
        OWN,
        {"origin": site.url},
        {"x_argosy_csrf": browser.csrf},
        {"x_argosy_csrf": "", **OWN},
        {"x_argosy_csrf": browser.csrf[:-1] + "~", **OWN},
        {"x_argosy_csrf": browser.csrf, "sec-fetch-site": "cross-site"},
        {"x_argosy_csrf": browser.csrf, "sec-fetch-site": "same-site"},
        {"x_argosy_csrf": browser.csrf, "origin": "https://evil.example"},
        {"x_argosy_csrf": browser.csrf, "origin": "null"},
        {"x_argosy_csrf": browser.csrf, "origin": f"{site.url}.evil.example"},
        {"x_argosy_csrf": browser.csrf, "sec-fetch-site": "cross-site", "origin": site.url},
    ):
        assert change(browser, **forged) == 403, forged


def test_a_forms_body_is_no_request_of_ours(browser):
    """What a page of another site can send without asking first."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = browser.post("/v1/tokens", content=b"{}", headers={"content-type": kind})
        assert answer.status_code in {403, 415, 422}


def test_one_sessions_csrf_is_not_anothers(browser, site):
    with site.http() as other:
        csrf = other.post("/v1/session", json={"token": site.admin_token}).json()["csrf"]
        assert csrf != browser.csrf
        assert change(browser, x_argosy_csrf=csrf, **OWN) == 403
        assert change(other, x_argosy_csrf=csrf, **OWN) == 201


def test_another_page_signs_nobody_in(site):
    """Or a visitor would work in the attacker's account without knowing."""
    body = {"token": site.admin_token}
    with site.http() as client:
        for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
            answer = client.post("/v1/session", json=body, headers=headers)
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
        assert client.post("/v1/session", json=body, headers=OWN).status_code == 200


def test_a_session_ends_with_its_sign_out_and_with_its_token(site, admin):
    made = admin.post("/v1/api-tokens", json={"name": "short-lived", "role": "viewer"}).json()
    with site.http() as one, site.http() as two:
        for client in (one, two):
            client.csrf = client.post("/v1/session", json={"token": made["token"]}).json()["csrf"]
            assert client.get("/v1/jobs").status_code == 200
        kept = dict(one.cookies)
        headers = {"x-argosy-csrf": one.csrf, **OWN}
        assert one.delete("/v1/session", headers=headers).status_code == 204
        for name, value in kept.items():
            one.cookies.set(name, value)
        assert one.get("/v1/jobs").status_code == 401
        assert two.get("/v1/jobs").status_code == 200
        assert admin.post(f"/v1/api-tokens/{made['view']['id']}/revoke").status_code == 200
        assert two.get("/v1/jobs").status_code == 401
    with site.http(made["token"]) as program:
        assert program.get("/v1/jobs").status_code == 401


def test_a_made_up_cookie_opens_nothing(site, browser):
    (name,) = dict(browser.cookies)
    for value in ("x", "0" * 43, "' OR 1=1 --", "../../etc/passwd"):
        with site.http(cookie=f'{name}="{value}"') as stranger:
            assert stranger.get("/v1/jobs").status_code == 401


def test_guessing_at_tokens_is_slowed_down(site):
    with site.http(source="127.0.0.9") as guesser:
        codes = []
        while 429 not in codes and len(codes) < 100:
            guess = f"arg_key_{len(codes):016d}_{'x' * 43}"
            codes.append(guesser.post("/v1/session", json={"token": guess}).status_code)
        assert codes[-1] == 429
        assert set(codes[:-1]) == {401}
        assert len(codes) > 20
    with site.http(source="127.0.0.10") as person:
        assert person.post("/v1/session", json={"token": site.admin_token}).status_code == 200


def test_where_the_platform_speaks_tls_itself_is_not_told_over_http(browser):
    """HSTS over plain HTTP means nothing (RFC 6797, section 7.2), and would only mislead."""
    assert "strict-transport-security" not in browser.get("/v1/health").headers
