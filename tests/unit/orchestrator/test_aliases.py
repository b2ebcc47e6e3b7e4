"""Aliases: moved on purpose, compared before they are set, and every move written down."""

from __future__ import annotations

import pytest

from orchestrator.domain.alias import MAX_ALIASES
from schemas.access import Role

BASE = "/v1/models/digits/aliases"
SPEC = {"name": "digits", "task": "m:T", "stop": {"target": 0.9}}


@pytest.fixture
def three(platform, admin):
    """digits@1, 2 and 3; champion is at the first."""
    for number in range(3):
        platform.models.register("digits", platform.manifest(content=b"%d" % number), None)
    return admin


def put(client, alias, version, **more):
    return client.put(f"{BASE}/{alias}", json={"version": version, **more})


def history(client, alias, **params):
    return client.get(f"{BASE}/{alias}/history", params=params).json()


def moves(client, alias):
    return [(c["before"], c["version"]) for c in history(client, alias)["items"]]


def told(platform):
    with platform.uow.read() as tx:
        events = [event.data for event in tx.events.after(0, "digits", 100)]
    return [data for data in events if data["change"] == "alias"]


def test_an_alias_moves_and_every_move_is_written_down(platform, three):
    assert put(three, "next", 2).json()["aliases"] == {"champion": 1, "next": 2}
    platform.clock.forward(60)
    assert put(three, "next", 3).json()["aliases"] == {"champion": 1, "next": 3}
    assert three.delete(f"{BASE}/next").json()["aliases"] == {"champion": 1}
    newest, *_ = items = history(three, "next")["items"]
    assert [(i["before"], i["version"]) for i in items] == [(3, None), (2, 3), (None, 2)]
    assert newest["by"].startswith("key_")
    assert newest["at"] > items[-1]["at"]
    assert [(d.get("before"), d.get("version")) for d in told(platform)][1:] == [
        (None, 2),
        (2, 3),
        (3, None),
    ]


def test_a_repeat_is_neither_a_move_nor_a_fault(platform, three):
    assert put(three, "next", 2, expected=None).status_code == 200
    before = len(told(platform))
    assert put(three, "next", 2).status_code == 200
    assert put(three, "champion", 1, expected=1).status_code == 200
    # The answer to the first try was lost: what it asked for is so.
    assert put(three, "champion", 2, expected=1).status_code == 200
    assert put(three, "champion", 2, expected=1).status_code == 200
    assert len(told(platform)) == before + 1
    assert moves(three, "next") == [(None, 2)]


def test_who_expected_something_else_is_told_what_is(three):
    put(three, "champion", 2)
    late = put(three, "champion", 3, expected=1)
    assert (late.status_code, late.json()["code"]) == (409, "conflict")
    assert late.json()["detail"] == "the alias champion is at digits@2, not at digits@1"
    absent = put(three, "next", 3, expected=1)
    assert absent.json()["detail"] == "the alias next is not there, not at digits@1"
    gone = three.delete(f"{BASE}/champion", params={"expected": 1})
    assert gone.status_code == 409
    assert three.delete(f"{BASE}/champion", params={"expected": 2}).status_code == 200
    assert moves(three, "champion") == [(2, None), (1, 2), (None, 1)]


def test_a_jobs_promotion_is_recorded_with_the_job(platform, three):
    three.post("/v1/jobs", json=SPEC | {"promote": {"alias": "champion"}})
    worker = platform.client(platform.key(Role.WORKER))
    claim = worker.post("/v1/worker/claim", json={"agent": "a"}).json()
    driver = platform.client(claim["job_token"])
    body = platform.manifest(content=b"trained").model_dump(mode="json")
    assert driver.post("/v1/models/digits/versions", json=body).json()["version"] == 4
    newest, first = history(three, "champion")["items"]
    assert (newest["before"], newest["version"], newest["by"]) == (1, 4, claim["id"])
    assert first["by"] == "operator"
    for call in (
        driver.put(f"{BASE}/champion", json={"version": 1}),
        driver.delete(f"{BASE}/champion"),
        driver.get(f"{BASE}/champion/history"),
    ):
        assert call.status_code == 403


def test_who_registers_by_a_key_is_recorded_with_the_key(platform, admin):
    body = platform.manifest().model_dump(mode="json")
    admin.post("/v1/models/digits/versions", json=body)
    assert history(admin, "champion")["items"][0]["by"].startswith("key_")


def test_history_comes_in_pages(three):
    for version in (2, 3, 2, 3):
        put(three, "next", version)
    page = history(three, "next", limit=3)
    rest = history(three, "next", limit=3, cursor=page["next"])
    assert rest["next"] is None
    versions = [c["version"] for c in page["items"] + rest["items"]]
    assert versions == [3, 2, 3, 2]
    assert history(three, "next", cursor="-" + "9" * 60)["items"] == []
    assert len(history(three, "next", cursor="9" * 60)["items"]) == 4
    answer = three.get(f"{BASE}/next/history", params={"cursor": "x"})
    assert answer.status_code == 422


def test_what_means_a_version_already_is_no_alias(three):
    for alias in ("7", "0", "latest"):
        answer = put(three, alias, 2)
        assert answer.status_code == 422
        assert "cannot be an alias" in answer.json()["detail"]


ODD = ["Champion", "a_b", "-a", "a-", "a" * 64, "a%00", "%C3%A9", "a.b", "%7e", "a%20b", "a%0a"]


def test_an_odd_name_is_no_alias(three):
    for alias in ODD:
        assert put(three, alias, 2).status_code == 422, alias
        assert three.delete(f"{BASE}/{alias}").status_code == 422
        assert three.get(f"{BASE}/{alias}/history").status_code == 422
    assert three.get("/v1/models/digits").json()["aliases"] == {"champion": 1}


def test_a_body_that_is_not_understood_moves_nothing(three):
    for body in (
        {"version": 2, "exepcted": 1},
        {"version": 0},
        {"version": 2**31},
        {"version": "two"},
        {"version": 2, "expected": -1},
        {},
        [],
        None,
    ):
        assert three.put(f"{BASE}/champion", json=body).status_code == 422, body
    assert moves(three, "champion") == [(None, 1)]


def test_what_is_not_there_is_said(three):
    assert "digits@3" in put(three, "next", 9).json()["detail"]
    answer = three.delete(f"{BASE}/next")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "it has champion" in answer.json()["detail"]
    assert three.get(f"{BASE}/next/history").status_code == 404
    nowhere = "/v1/models/nobody/aliases/next"
    assert three.put(nowhere, json={"version": 1}).status_code == 404
    assert three.delete(nowhere).status_code == 404
    assert three.get(f"{nowhere}/history").status_code == 404


def test_an_alias_never_leads_to_what_cannot_be_run(platform, three):
    three.post("/v1/models/digits/versions/2/revoke", json={"reason": "wrong labels"})
    with platform.uow() as tx:
        tx.models.set_purged("digits", 3)
    revoked, purged = put(three, "next", 2), put(three, "next", 3)
    assert (revoked.status_code, revoked.json()["code"]) == (409, "revoked")
    assert "wrong labels" in revoked.json()["detail"]
    assert (purged.status_code, purged.json()["code"]) == (409, "conflict")
    assert "collected" in purged.json()["detail"]
    assert three.get("/v1/models/digits").json()["aliases"] == {"champion": 1}


def test_a_model_has_only_so_many(platform, three):
    with platform.uow() as tx:
        for number in range(MAX_ALIASES - 1):
            tx.models.set_alias("digits", f"a{number}", 1)
    full = put(three, "one-more", 2)
    assert full.status_code == 409
    assert f"may have {MAX_ALIASES}" in full.json()["detail"]
    assert put(three, "a7", 2).status_code == 200
    three.delete(f"{BASE}/a8")
    assert put(three, "one-more", 2).status_code == 200
