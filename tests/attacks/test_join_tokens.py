"""Join tokens in the wrong hands."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import serialization

from schemas.enroll import JoinToken
from tests.attacks.intruder import new_key

pytestmark = pytest.mark.integration


def refused(answer, *codes: str) -> None:
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["code"] in codes, answer.text
    assert "BEGIN CERTIFICATE" not in answer.text


def spki(key) -> str:
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def test_a_stolen_token_lets_in_exactly_as_many_as_it_may(site, admin):
    """All at once, so that checks before the count would be overtaken."""
    token, start = site.join_token(max_uses=5), threading.Barrier(24)

    def race(_: int):
        key = new_key()
        start.wait(30)
        return site.ask(token, key)

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(race, range(24)))
    assert Counter(a.status_code for a in answers) == {201: 5, 401: 19}
    assert {a.json()["code"] for a in answers if a.status_code == 401} == {"token_spent"}
    assert len({a.json()["device"] for a in answers if a.status_code == 201}) == 5
    views = {t["id"]: t for t in admin.get("/v1/tokens", params={"limit": 500}).json()["items"]}
    assert views[JoinToken.parse(token).id]["uses"] == 5


def test_the_same_key_at_once_is_one_device_and_one_use(site, admin):
    token, key, start = site.join_token(max_uses=5), new_key(), threading.Barrier(8)

    def race(_: int):
        start.wait(30)
        return site.ask(token, key)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(race, range(8)))
    made = [a.json()["device"] for a in answers if a.status_code == 201]
    assert made
    assert len(set(made)) == 1
    views = {t["id"]: t for t in admin.get("/v1/tokens", params={"limit": 500}).json()["items"]}
    assert views[JoinToken.parse(token).id]["uses"] == 1


def test_a_token_for_one_class_opens_no_other(site):
    for name in ("cameras", "gates"):
        with site.http(site.admin_token) as admin:
            assert admin.put(f"/v1/device-classes/{name}", json={}).status_code in {200, 201}
    token = site.join_token(device_class="cameras", max_uses=9)
    wishes = {"device_class": "gates", "class": "gates", "tags": ["vip"], "device": "dev_x"}
    made = site.ask(token, new_key(), **wishes)
    if made.status_code == 201:
        assert made.json()["device_class"] == "cameras"
        shown = site.device(made.json()["device"])
        assert (shown["device_class"], shown["tags"]) == ("cameras", [])
    else:
        refused(made, "invalid")
    assert site.ask(token, new_key()).json()["device_class"] == "cameras"


def test_parts_of_two_tokens_make_no_third(site):
    one = JoinToken.parse(site.join_token(max_uses=9))
    two = JoinToken.parse(site.join_token(max_uses=9))
    forged = [
        JoinToken(one.id, two.secret, one.ca_sha256, one.root_sha256),
        JoinToken(one.id, one.secret[:-1] + "A", one.ca_sha256, one.root_sha256),
        JoinToken("tok_" + "0" * 16, one.secret, one.ca_sha256, one.root_sha256),
        JoinToken(one.id, one.secret, "0" * 64, one.root_sha256),
        JoinToken(one.id, one.secret, one.ca_sha256, "0" * 64),
    ]
    for token in forged:
        if token != one:
            refused(site.ask(str(token), new_key()), "token_invalid")
    for text in (
        "",
        "aj1",
        str(one).replace("aj1", "aj2"),
        f"{one}.{one.id}",
        "aj1." * 90,
        "a" * 401,
    ):
        refused(site.ask(text, new_key()), "token_invalid", "invalid")
    assert site.ask(str(one), new_key()).status_code == 201


def test_a_revoked_token_lets_nobody_in(site, admin):
    token = site.join_token(max_uses=9)
    assert site.ask(token, new_key()).status_code == 201
    assert admin.post(f"/v1/tokens/{JoinToken.parse(token).id}/revoke").status_code == 200
    refused(site.ask(token, new_key()), "token_invalid", "revoked")


def test_a_token_for_certain_keys_knows_no_others(site):
    ours = new_key()
    token = site.join_token(keys=[spki(ours)], max_uses=1)
    refused(site.ask(token, new_key()), "token_invalid", "forbidden", "rejected", "csr_invalid")
    assert site.ask(token, ours).status_code == 201


def test_what_awaits_approval_has_no_certificate(site, admin):
    token, key = site.join_token(approval=True, max_uses=3), new_key()
    waiting = site.ask(token, key)
    assert waiting.status_code == 202
    assert "certificate" not in waiting.text
    device = waiting.json()["device"]
    other = site.ask(token, new_key()).json()["device"]
    assert other != device
    assert admin.post(f"/v1/devices/{other}/reject").status_code == 200
    assert admin.post(f"/v1/devices/{device}/approve").status_code == 200
    assert site.ask(token, key).status_code == 201
    assert site.device(other)["state"] == "REVOKED"
    # Whoever knows the token and the key's hash, but has not the key, proves nothing.
    refused(site.ask(token, key, csr_pem="-----BEGIN CERTIFICATE REQUEST-----\n"), "csr_invalid")


def test_a_token_in_a_devices_place_does_not_outlive_its_use(site):
    """A lost device comes back under its id; the old certificate and the token are dead."""
    lost = site.enroll()
    token = site.join_token(device=lost.device)
    found = site.enroll(token)
    assert found.device == lost.device
    refused(site.ask(token, new_key()), "token_spent", "token_invalid")
    assert site.knock(found) == 0


def test_secrets_of_tokens_are_not_given_out_again(site, admin):
    token = JoinToken.parse(site.join_token())
    listed = admin.get("/v1/tokens", params={"limit": 500}).text
    assert token.id in listed
    assert token.secret not in listed
    assert hashlib.sha256(token.secret.encode()).hexdigest() not in listed
