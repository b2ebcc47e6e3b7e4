"""What a broken or malicious client may send about jobs, and what must go on regardless."""

from __future__ import annotations

import json

import pytest

from orchestrator.services import agents, job_history
from schemas.access import Role

SPEC = {"name": "digits", "task": "m:T", "stop": {"target": 0.97}, "max_attempts": 3}
JSON = {"content-type": "application/json"}


def nested(levels, inner="1"):
    return '{"a":' * levels + inner + "}" * levels


@pytest.fixture
def worker(platform):
    return platform.client(platform.key(Role.WORKER))


class Driver:
    """A running job, and who speaks for it."""

    def __init__(self, platform, admin, worker) -> None:
        self.platform, self.admin, self.worker = platform, admin, worker
        self.id = admin.post("/v1/jobs", json=SPEC).json()["id"]
        self.claim()

    def claim(self):
        found = self.worker.post("/v1/worker/claim", json={"agent": "a"}).json()
        self.attempt, self.seq = found["attempt"], 0
        self.client = self.platform.client(found["job_token"])

    def lose(self):
        self.platform.clock.forward(31)
        assert self.platform.jobs.expire_leases() == 1
        self.platform.clock.forward(300)
        self.claim()

    def send(self, **more):
        body = {"attempt": self.attempt, "seq": self.seq, **more}
        self.seq += 1
        return self.client.post(f"/v1/jobs/{self.id}/progress", json=body)

    def points(self, *accuracies, start=1, trial=0):
        at = self.platform.clock().isoformat()
        return [
            {"epoch": epoch, "trial": trial, "at": at, "values": {"accuracy": value}}
            for epoch, value in enumerate(accuracies, start)
        ]

    def view(self):
        return self.admin.get(f"/v1/jobs/{self.id}").json()

    def curve(self):
        items = self.admin.get(f"/v1/jobs/{self.id}/metrics").json()["items"]
        return [(one["epoch"], one["values"]["accuracy"]) for one in items]


@pytest.fixture
def job(platform, admin, worker):
    return Driver(platform, admin, worker)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (r'{"a":"\u0000"}', r"config: has a character that cannot be stored: '\x00' (at a)"),
        (r'{"a":["\ud800"]}', "the body is not JSON: unexpected end of hex escape"),
        (r'{"\ud800":1}', "the body is not JSON: unexpected end of hex escape"),
        ('{"a":NaN}', "the body is not JSON: expected value"),
        (nested(40), "config: has more than 32 levels"),
        (nested(900), "the body is not JSON: recursion limit exceeded"),
        ('{"a":' + "9" * 40 + "}", "config: has a whole number beyond 64 bits (at a)"),
        ('{"a":"' + "x" * 70_000 + '"}', "config: has more than 65536 bytes"),
    ],
)
def test_a_config_that_would_break_every_listing_is_refused(admin, worker, config, why):
    body = json.dumps(SPEC)[:-1] + f', "config": {config}}}'
    answer = admin.post("/v1/jobs", content=body, headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(why)
    assert admin.get("/v1/jobs").json()["items"] == []
    assert worker.post("/v1/worker/claim", json={"agent": "a"}).status_code == 204


def test_usage_without_measure_breaks_no_sum(job):
    for _ in range(2):
        assert job.send(usage={"cpu_seconds": 1.7e308, "gpu_seconds": 1e300}).status_code == 200
        job.lose()
    assert job.view()["usage"]["cpu_seconds"] == 1e12
    live = {"at": job.platform.clock().isoformat(), "eta_seconds": 1e308, "rss_mb": 1e308}
    assert job.send(live=live).status_code == 200
    assert job.view()["live"]["rss_mb"] == 1e12


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_zone_can_show_is_refused(job, at):
    answer = job.send(logs=[{"at": at, "text": "x"}])
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "logs.0.at: needs a year from 2 to 9998",
    )


def test_names_of_metrics_and_swept_keys_are_bounded(job):
    at = job.platform.clock().isoformat()
    long = job.send(metrics=[{"epoch": 1, "at": at, "values": {"x" * 201: 1.0}}])
    assert long.status_code == 422
    trial = {"number": 1, "parameters": {"config.lr": "x" * 1001}}
    assert job.send(trials=[trial]).status_code == 422
    assert job.send(trials=[trial | {"parameters": {"x" * 500: 1}}]).status_code == 422
    assert job.curve() == []


def test_what_is_said_after_the_end_is_neither_kept_nor_told(job):
    assert job.send(state="FAILED", cause="user_code").status_code == 200
    with job.platform.uow.read() as tx:
        before = tx.events.last_id()
    for _ in range(3):
        late = job.send(
            metrics=job.points(0.9),
            live={"at": job.platform.clock().isoformat()},
            logs=[{"at": job.platform.clock().isoformat(), "text": "late"}],
        )
        assert late.status_code == 200
    with job.platform.uow.read() as tx:
        assert tx.events.last_id() == before
    assert (job.curve(), job.view()["live"]) == ([], None)


def test_epochs_of_work_that_was_lost_leave_the_curve_and_the_best_figure(job):
    job.send(metrics=job.points(0.5, 0.6, 0.99, 0.7))
    assert (job.view()["best"]["accuracy"], job.view()["best"]["epoch"]) == (0.99, 3)
    job.lose()
    job.send(metrics=job.points(0.65, start=3))
    assert job.curve() == [(1, 0.5), (2, 0.6), (3, 0.65)]
    assert (job.view()["best"]["accuracy"], job.view()["best"]["epoch"]) == (0.65, 3)
    job.send(metrics=job.points(0.6, start=4))
    assert job.curve()[-1] == (4, 0.6)
    assert job.view()["best"]["epoch"] == 3


def test_the_lost_work_of_one_trial_leaves_the_others_alone(job):
    job.send(metrics=[*job.points(0.5, 0.8, trial=1), *job.points(0.6, 0.7, trial=2)])
    job.lose()
    job.send(metrics=job.points(0.55, trial=1))
    items = job.admin.get(f"/v1/jobs/{job.id}/metrics").json()["items"]
    assert [(i["trial"], i["epoch"]) for i in items] == [(1, 1), (2, 1), (2, 2)]
    assert (job.view()["best"]["trial"], job.view()["best"]["accuracy"]) == (2, 0.7)


def test_no_trial_runs_on_when_its_job_has_ended(job):
    trials = [
        {"number": n, "parameters": {"config.lr": n}, "state": state}
        for n, state in enumerate(("done", "running", "waiting", "failed"), 1)
    ]
    job.send(trials=trials)
    job.send(state="FAILED", cause="user_code")
    states = [trial["state"] for trial in job.view()["trials"]]
    assert states == ["done", "stopped", "stopped", "failed"]


def test_trials_that_nobody_asked_for_are_kept_in_small(job, monkeypatch):
    monkeypatch.setattr(job_history, "SWEPT_CAP", 10)
    for start in range(1, 60, 12):
        job.send(metrics=job.points(*[0.1 * (i % 7) for i in range(12)], start=start, trial=200))
    assert len(job.curve()) <= 2 * 10 + 12


def test_names_of_agents_do_not_pile_up(platform, admin, worker, monkeypatch):
    monkeypatch.setattr(agents, "MAX_AGENTS", 5)
    for number in range(12):
        platform.clock.forward(1)
        worker.post("/v1/worker/claim", json={"agent": f"a{number:02}"})
    names = [one["name"] for one in admin.get("/v1/agents").json()["items"]]
    assert names == ["a07", "a08", "a09", "a10", "a11"]


def test_a_submission_that_is_repeated_is_one_job(admin):
    key = {"idempotency-key": "0123456789abcdef"}
    first = admin.post("/v1/jobs", json=SPEC, headers=key)
    again = admin.post("/v1/jobs", json=SPEC, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert len(admin.get("/v1/jobs").json()["items"]) == 1
    other = admin.post("/v1/jobs", json=SPEC | {"seed": 5}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert first.json()["id"] in other.json()["detail"]
    assert admin.post("/v1/jobs", json=SPEC, headers={"idempotency-key": "x y"}).status_code == 422
    admin.post("/v1/jobs", json=SPEC)
    admin.post("/v1/jobs", json=SPEC)
    assert len(admin.get("/v1/jobs").json()["items"]) == 3


def test_a_repeat_answers_though_the_code_is_gone(tmp_path, platform, admin):
    file = platform.file("code.zip", b"zip")
    code = {"sha256": file.sha256, "size": file.size, "files": 1}
    key = {"idempotency-key": "0123456789abcdef"}
    made = admin.post("/v1/jobs", json=SPEC | {"code": code}, headers=key).json()
    (path,) = (tmp_path / "artifacts").rglob(file.sha256)
    path.unlink()
    again = admin.post("/v1/jobs", json=SPEC | {"code": code}, headers=key)
    assert again.json()["id"] == made["id"]
    cloned = admin.post("/v1/jobs", json=SPEC | {"code": code, "cloned_from": made["id"]})
    assert cloned.status_code == 404
    assert cloned.json()["detail"] == f"code: artifact {file.sha256} has not been uploaded"


def test_a_clone_of_no_job_is_refused(admin):
    answer = admin.post("/v1/jobs", json=SPEC | {"cloned_from": "job_" + "0" * 16})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_slow_uploads_leave_threads_for_everybody_else(platform):
    """They share a few; and one of which nothing comes is given up (test_api_limits.py)."""
    assert platform.app.state.context.uploading.total_tokens == 8
