"""Tokens of people: nobody gives more than they have, and the last key is not thrown away."""

from __future__ import annotations

import logging

import pytest

from orchestrator.services import keys
from orchestrator.services.attempts import FailedAttempts
from schemas.access import PEOPLE, SCOPES_OF, Role


def make(client, name="ann", role="viewer", **more):
    return client.post("/v1/api-tokens", json={"name": name, "role": role, **more})


def test_a_token_has_the_rights_of_its_role(platform, admin):
    for role in PEOPLE:
        made = make(admin, f"a-{role}", role).json()
        who = platform.client(made["token"]).get("/v1/whoami").json()
        assert (who["role"], set(who["scopes"])) == (role, SCOPES_OF[role])
        assert made["token"] not in str(admin.get("/v1/api-tokens").json())


def test_a_token_may_have_fewer(platform, admin):
    made = make(admin, role="operator", scopes=["jobs:read"]).json()
    client = platform.client(made["token"])
    assert client.get("/v1/jobs").status_code == 200
    assert client.get("/v1/models").status_code == 403
    assert "models:read" in client.get("/v1/models").json()["detail"]


def test_scopes_that_the_role_lacks_are_refused(admin):
    answer = make(admin, role="viewer", scopes=["jobs:write"])
    assert answer.status_code == 422
    assert "jobs:write" in answer.json()["detail"]


@pytest.mark.parametrize("role", ["worker", "job"])
def test_programs_get_their_tokens_elsewhere(admin, role):
    assert make(admin, role=role).status_code == 422


def test_nobody_gives_more_than_they_have(platform, admin):
    scopes = ["access:write", "jobs:read"]
    little = platform.client(make(admin, "little", "admin", scopes=scopes).json()["token"])
    assert make(little, "whole", "admin").status_code == 403
    assert make(little, "writer", "operator", scopes=["jobs:write"]).status_code == 403
    assert make(little, "reader", "viewer", scopes=["jobs:read"]).status_code == 201


def test_no_token_outlives_the_one_that_made_it(platform, admin):
    short = platform.client(make(admin, "short", "admin", ttl_seconds=3600).json()["token"])
    assert make(short, "longer", ttl_seconds=7200).status_code == 403
    end = make(short, "same").json()["view"]["expires_at"]
    assert end == short.get("/v1/whoami").json()["expires_at"]
    platform.clock.forward(3601)
    assert short.get("/v1/whoami").status_code == 401


def test_two_tokens_that_work_have_two_names(platform, admin):
    first = make(admin).json()["view"]["id"]
    assert make(admin).status_code == 409
    admin.post(f"/v1/api-tokens/{first}/revoke")
    assert make(admin).status_code == 201


def test_a_revoked_token_is_refused_at_once(platform, admin):
    made = make(admin).json()
    assert admin.post(f"/v1/api-tokens/{made['view']['id']}/revoke").json()["revoked"]
    assert platform.client(made["token"]).get("/v1/jobs").status_code == 401
    # A repeat changes nothing.
    assert admin.post(f"/v1/api-tokens/{made['view']['id']}/revoke").status_code == 200


def test_the_token_in_use_is_not_revoked_by_mistake(admin):
    own = admin.get("/v1/whoami").json()["id"]
    make(admin, "other", "admin")
    assert admin.post(f"/v1/api-tokens/{own}/revoke").status_code == 409
    assert admin.post(f"/v1/api-tokens/{own}/revoke?force=true").status_code == 200
    assert admin.get("/v1/whoami").status_code == 401


def test_the_last_token_that_may_manage_tokens_stays(platform, admin):
    own = admin.get("/v1/whoami").json()["id"]
    # None of these can take its place: one that ends, one with fewer rights, one of a program.
    make(admin, "short", "admin", ttl_seconds=60)
    make(admin, "less", "admin", scopes=["audit:read"])
    platform.key(Role.WORKER)
    platform.clock.forward(61)
    answer = admin.post(f"/v1/api-tokens/{own}/revoke?force=true")
    assert answer.status_code == 409
    assert "last" in answer.json()["detail"]
    assert admin.get("/v1/whoami").status_code == 200


def test_a_workers_token_can_be_revoked_and_a_jobs_is_not_listed(platform, admin):
    worker = keys.id_of(platform.key(Role.WORKER))
    job = keys.id_of(platform.key(Role.JOB, "job_x"))
    listed = {one["id"] for one in admin.get("/v1/api-tokens").json()["items"]}
    assert worker in listed
    assert job not in listed
    assert admin.post(f"/v1/api-tokens/{worker}/revoke").status_code == 200
    assert admin.post(f"/v1/api-tokens/{job}/revoke").status_code == 404


def test_the_last_use_is_written_once_a_minute_and_not_by_the_request(platform, admin):
    def used():
        return admin.get("/v1/api-tokens").json()["items"][0]["last_used_at"]

    assert used() is None
    platform.access.tick()
    assert used() is None, "a tick within the minute writes nothing"
    platform.clock.forward(61)
    seen = platform.clock()
    admin.get("/v1/whoami")
    platform.access.tick()
    assert used() == seen.isoformat().replace("+00:00", "Z")


def test_failed_attempts_are_told_by_the_id_and_once_a_minute(platform, caplog):
    secret = "x" * 43
    token = f"arg_key_0000000000000000_{secret}"
    with caplog.at_level(logging.WARNING, "orchestrator.services.attempts"):
        for _ in range(5):
            platform.client(token).get("/v1/jobs")
        platform.clock.forward(61)
        platform.client(token).get("/v1/jobs")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "key_0000000000000000" in lines[0]
    assert "4 more" in lines[1]
    assert secret not in "".join(lines)


def test_what_is_remembered_of_failed_attempts_is_bounded(platform, caplog):
    attempts = FailedAttempts(platform.clock)
    for n in range(1500):
        attempts.note("nonsense", f"10.0.{n // 256}.{n % 256}", "unknown")
    assert len(attempts._heard) == 1000


def test_a_token_of_few_rights_does_not_take_all_of_them_from_the_platform(platform, admin):
    few = make(admin, "few", "admin", scopes=["access:write"]).json()["token"]
    whole = admin.get("/v1/whoami").json()["id"]
    answer = platform.client(few).post(f"/v1/api-tokens/{whole}/revoke")
    assert (answer.status_code, "do everything" in answer.json()["detail"]) == (409, True)
    assert make(admin, "other", "admin").status_code == 201
    assert platform.client(few).post(f"/v1/api-tokens/{whole}/revoke").status_code == 200
