"""Jobs over HTTP: submit, claim, report, lose the lease, cancel."""

from __future__ import annotations

from datetime import timedelta

import pytest

from schemas.access import Role

SPEC = {
    "name": "digits",
    "task": "workers.recipes.digits:Digits",
    "stop": {"target": 0.97},
    "max_attempts": 2,
}


@pytest.fixture
def worker(platform):
    return platform.client(platform.key(Role.WORKER))


@pytest.fixture
def claimed(platform, admin, worker):
    """A running job: its claim and the client of its driver."""
    admin.post("/v1/jobs", json=SPEC)
    claim = worker.post("/v1/worker/claim", json={"agent": "a"}).json()
    return claim, platform.client(claim["job_token"])


def progress(claim, driver, seq, **more):
    body = {"attempt": claim["attempt"], "seq": seq, **more}
    return driver.post(f"/v1/jobs/{claim['id']}/progress", json=body)


def test_a_job_runs_from_submission_to_its_model(platform, admin, claimed):
    claim, driver = claimed
    point = {"epoch": 0, "at": platform.clock().isoformat(), "values": {"accuracy": 0.9}}
    line = {"at": platform.clock().isoformat(), "text": "epoch 0"}
    assert progress(claim, driver, 0, epoch=0, metrics=[point], logs=[line]).status_code == 200
    for seq, state in enumerate(["EXPORTING", "OPTIMIZING", "REGISTERING"], 1):
        assert progress(claim, driver, seq, state=state).status_code == 200
    last = {"state": "SUCCEEDED", "model": "digits", "version": 1}
    early = progress(claim, driver, 4, **last)
    assert early.json()["detail"] == f"{claim['id']} has not registered digits@1"
    platform.models.register("digits", platform.manifest(), claim["id"])
    assert progress(claim, driver, 4, **last | {"model": "other"}).status_code == 409
    assert progress(claim, driver, 4, **last).status_code == 200
    job = admin.get(f"/v1/jobs/{claim['id']}").json()
    assert (job["state"], job["model"], job["version"]) == ("SUCCEEDED", "digits", 1)
    assert job["best"]["accuracy"] == 0.9
    assert admin.get(f"/v1/jobs/{claim['id']}/metrics").json()["items"][0]["epoch"] == 0
    assert admin.get(f"/v1/jobs/{claim['id']}/logs").json()["items"][0]["text"] == "epoch 0"
    assert progress(claim, driver, 4, **last).status_code == 200  # its answer was lost
    assert admin.get(f"/v1/jobs/{claim['id']}").json()["epoch"] == 0
    platform.clock.forward(601)
    assert progress(claim, driver, 4, **last).status_code == 401


def test_a_repeated_report_is_stored_once(platform, admin, claimed):
    claim, driver = claimed
    line = {"at": platform.clock().isoformat(), "text": "once"}
    for _ in range(3):
        assert progress(claim, driver, 7, logs=[line]).status_code == 200
    assert len(admin.get(f"/v1/jobs/{claim['id']}/logs").json()["items"]) == 1


def test_states_cannot_be_skipped(claimed):
    claim, driver = claimed
    answer = progress(claim, driver, 0, state="SUCCEEDED", model="digits", version=1)
    assert answer.status_code == 409
    assert answer.json()["code"] == "illegal_transition"


def test_a_silent_job_goes_to_another_agent_and_the_first_is_told(platform, admin, worker, claimed):
    claim, driver = claimed
    platform.clock.forward(31)
    assert platform.jobs.expire_leases() == 1
    beat = {"attempt": 1, "lease": claim["lease"]}
    late = worker.post(f"/v1/worker/jobs/{claim['id']}/heartbeat", json=beat)
    assert late.json()["code"] == "lease_lost"
    assert worker.post("/v1/worker/claim", json={"agent": "b"}).status_code == 204
    waiting = admin.get(f"/v1/jobs/{claim['id']}").json()
    at = platform.clock() + timedelta(seconds=2)
    assert waiting["notice"] == (
        "attempt 1 failed (lease_expired: its agent stopped sending heartbeats); "
        f"it starts again at {at:%H:%M:%S} UTC"
    )
    platform.clock.forward(2)
    again = worker.post("/v1/worker/claim", json={"agent": "b"}).json()
    assert (again["id"], again["attempt"]) == (claim["id"], 2)
    assert progress(claim, driver, 50, epoch=3).status_code == 401
    platform.clock.forward(31)
    platform.jobs.expire_leases()
    job = admin.get(f"/v1/jobs/{claim['id']}").json()
    assert (job["state"], job["cause"]) == ("FAILED", "lease_expired")


def test_heartbeats_keep_the_lease_and_say_when_to_stop(platform, admin, worker, claimed):
    claim, _ = claimed
    beat = {"attempt": 1, "lease": claim["lease"]}
    for _ in range(4):
        platform.clock.forward(20)
        answer = worker.post(f"/v1/worker/jobs/{claim['id']}/heartbeat", json=beat)
        assert answer.json()["cancel"] is False
        assert platform.jobs.expire_leases() == 0
    admin.post(f"/v1/jobs/{claim['id']}/cancel")
    assert worker.post(f"/v1/worker/jobs/{claim['id']}/heartbeat", json=beat).json()["cancel"]
    ended = {"attempt": 1, "lease": claim["lease"], "cancelled": True}
    job = worker.post(f"/v1/worker/jobs/{claim['id']}/outcome", json=ended).json()
    assert job["state"] == "CANCELLED"
    again = worker.post(f"/v1/worker/jobs/{claim['id']}/outcome", json=ended)
    assert again.status_code == 200


def test_another_agents_lease_is_not_accepted(worker, claimed):
    claim, _ = claimed
    beat = {"attempt": 1, "lease": "guess"}
    answer = worker.post(f"/v1/worker/jobs/{claim['id']}/heartbeat", json=beat)
    assert answer.json()["code"] == "lease_lost"


def test_a_queued_job_is_cancelled_at_once_and_an_ended_one_not_at_all(admin, worker):
    job = admin.post("/v1/jobs", json=SPEC).json()
    assert admin.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "CANCELLED"
    assert admin.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
    assert worker.post("/v1/worker/claim", json={"agent": "a"}).status_code == 204


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"nam": "x"}, "nam"),
        ({"task": "no colon"}, "task"),
        ({"stop": {}}, "stop"),
        ({"resources": {"workers": 0}}, "resources.workers"),
        ({"stop": {"target": 2}}, "stop.target"),
        ({"name": "Not A Name"}, "name"),
    ],
)
def test_a_broken_job_is_refused_where_it_is_broken(admin, change, where):
    answer = admin.post("/v1/jobs", json=SPEC | change)
    assert answer.status_code == 422
    assert any(e["field"].startswith(where) or where == "stop" for e in answer.json()["errors"])
    assert admin.get("/v1/jobs").json()["items"] == []


def test_an_unknown_job_is_named(admin):
    answer = admin.get("/v1/jobs/job_nope")
    assert answer.status_code == 404
    assert "job_nope" in answer.json()["detail"]


def test_pages_follow_their_cursor(admin):
    made = [admin.post("/v1/jobs", json=SPEC).json()["id"] for _ in range(5)]
    first = admin.get("/v1/jobs", params={"limit": 3}).json()
    rest = admin.get("/v1/jobs", params={"limit": 3, "cursor": first["next"]}).json()
    assert [j["id"] for j in first["items"] + rest["items"]] == sorted(made, reverse=True)
    assert rest["next"] is None
