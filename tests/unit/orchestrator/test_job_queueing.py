"""The queue over HTTP: who is given what, what a waiting job says, who may see the agents."""

from __future__ import annotations

import pytest

from orchestrator.domain.cost import Prices
from orchestrator.services import queues
from schemas.access import Role
from tests.unit.orchestrator.platform import Platform

SPEC = {"name": "digits", "task": "m:T", "stop": {"target": 0.97}}
SMALL = {"cpus": 4, "memory_gb": 8}


@pytest.fixture
def worker(platform):
    return platform.client(platform.key(Role.WORKER))


def submit(admin, **more):
    answer = admin.post("/v1/jobs", json=SPEC | more)
    assert answer.status_code == 201, answer.text
    return answer.json()


def claim(worker, agent="a", capacity=None):
    answer = worker.post("/v1/worker/claim", json={"agent": agent, "capacity": capacity})
    return answer.json() if answer.status_code == 200 else None


def job(admin, made):
    return admin.get(f"/v1/jobs/{made['id']}").json()


def test_work_is_given_by_priority_then_fair_share_then_age(platform, admin, worker):
    made = []
    for project, priority in [("a", 0), ("a", 0), ("b", 0), ("a", 5)]:
        made.append(submit(admin, project=project, priority=priority)["id"])
        platform.clock.forward(1)
    shown = sorted(admin.get("/v1/jobs").json()["items"], key=lambda one: one["position"])
    taken = [claim(worker)["id"] for _ in made]
    # The urgent one, then b, which runs nothing yet, then a by age.
    assert taken == [made[3], made[2], made[0], made[1]]
    assert [one["id"] for one in shown] == taken
    assert claim(worker) is None
    assert all(one["position"] is None for one in admin.get("/v1/jobs").json()["items"])


def test_what_a_project_used_of_late_counts_against_it(platform, admin, worker):
    submit(admin, project="greedy")
    held = claim(worker)
    driver = platform.client(held["job_token"])
    usage = {"wall_seconds": 10, "cpu_seconds": 5000}
    report = {"attempt": 1, "seq": 0, "state": "FAILED", "cause": "user_code", "usage": usage}
    assert driver.post(f"/v1/jobs/{held['id']}/progress", json=report).status_code == 200
    first = submit(admin, project="greedy")
    platform.clock.forward(5)
    second = submit(admin, project="modest")
    assert (job(admin, second)["position"], job(admin, first)["position"]) == (1, 2)
    platform.clock.forward(24 * 3600)
    assert (job(admin, second)["position"], job(admin, first)["position"]) == (2, 1)


def test_a_job_is_given_to_a_cluster_that_can_hold_it(platform, admin, worker):
    big = submit(admin, resources={"workers": "2..8", "gpus_per_worker": 1})
    platform.clock.forward(1)
    little = submit(admin)
    assert job(admin, big)["notice"].startswith("no agent has asked for work yet")
    assert claim(worker, "cpu-box", SMALL)["id"] == little["id"]
    assert claim(worker, "cpu-box", SMALL) is None
    assert job(admin, big)["notice"] == (
        "no cluster can hold it: it asks for at least 2 workers of 1 CPU, 1 GPU each; "
        "the only cluster, cpu-box, has 4 CPUs, no GPU"
    )
    assert claim(worker, "gpu-box", {"cpus": 16, "gpus": 2})["id"] == big["id"]
    assert job(admin, big)["notice"] is None


def test_a_cluster_that_grows_is_given_anything(admin, worker):
    made = submit(admin, resources={"workers": 64, "gpus_per_worker": 8})
    assert claim(worker, "cloud", {"cpus": 0, "grows": True})["id"] == made["id"]


def test_agents_that_fell_silent_are_told_of_and_busy_ones_are_not(platform, admin, worker):
    submit(admin)
    held = claim(worker, "busy", SMALL)
    waiting = submit(admin)
    beat = {"attempt": 1, "lease": held["lease"]}
    for _ in range(5):
        platform.clock.forward(20)
        worker.post(f"/v1/worker/jobs/{held['id']}/heartbeat", json=beat)
    assert job(admin, waiting)["notice"] is None
    platform.clock.forward(125)
    assert job(admin, waiting)["notice"] == (
        "no agent has asked for work for 2 minutes (the last was busy); "
        "start one with `argosy-worker agent`"
    )


def test_agents_are_listed_with_what_they_have_and_hold(platform, admin, worker):
    made = submit(admin)
    claim(worker, "b", SMALL)
    claim(worker, "a")
    first = admin.get("/v1/agents", params={"limit": 1}).json()
    rest = admin.get("/v1/agents", params={"cursor": first["next"]}).json()["items"]
    (a,), (b,) = first["items"], rest
    assert (a["name"], a["capacity"], a["jobs"]) == ("a", None, [])
    assert (b["name"], b["capacity"]["cpus"], b["jobs"]) == ("b", 4, [made["id"]])
    platform.clock.forward(86_401)
    claim(worker, "c")
    assert [one["name"] for one in admin.get("/v1/agents").json()["items"]] == ["c"]
    assert worker.get("/v1/agents").status_code == 403


def test_jobs_are_listed_by_state_project_and_name(admin, worker):
    digits, other = submit(admin, project="a"), submit(admin, name="sounds", project="b")
    cancelled = submit(admin, project="b")
    admin.post(f"/v1/jobs/{cancelled['id']}/cancel")

    def listed(**asked):
        return [one["id"] for one in admin.get("/v1/jobs", params=asked).json()["items"]]

    assert listed(state="QUEUED") == [other["id"], digits["id"]]
    assert listed(state=["QUEUED", "CANCELLED"], project="b") == [cancelled["id"], other["id"]]
    assert listed(name="digits", project="a") == [digits["id"]]
    assert listed(name="nothing") == []
    assert admin.get("/v1/jobs", params={"state": "ASLEEP"}).status_code == 422


def test_usage_is_that_of_all_attempts_and_costs_what_the_table_says(tmp_path):
    platform = Platform(tmp_path, Prices("EUR", cpu_hour=0.36, gpu_hour=3.6))
    admin = platform.client(platform.key(Role.ADMIN))
    worker = platform.client(platform.key(Role.WORKER))
    made = submit(admin)
    for attempt, seconds in ((1, (100, 300)), (2, (50,))):
        held = claim(worker)
        driver = platform.client(held["job_token"])
        for seq, cpu in enumerate(seconds):
            usage = {"cpu_seconds": cpu, "gpu_seconds": cpu / 10, "wall_seconds": 1}
            report = {"attempt": attempt, "seq": seq, "usage": usage}
            for _ in range(2):
                assert driver.post(f"/v1/jobs/{held['id']}/progress", json=report).is_success
        platform.clock.forward(31)
        platform.jobs.expire_leases()
        platform.clock.forward(10)
    found = job(admin, made)
    assert (found["usage"]["cpu_seconds"], found["usage"]["gpu_seconds"]) == (350, 35)
    assert found["cost"] == {"amount": 0.07, "currency": "EUR"}


def test_without_a_price_table_there_is_no_cost(admin):
    assert submit(admin)["cost"] is None


def test_a_notice_is_shown_until_it_is_taken_back(platform, admin, worker):
    made = submit(admin)
    held = claim(worker)
    driver = platform.client(held["job_token"])
    for seq, (notice, shown) in enumerate([("2 GPUs", "2 GPUs"), (None, "2 GPUs"), ("", None)]):
        report = {"attempt": 1, "seq": seq, "notice": notice}
        assert driver.post(f"/v1/jobs/{made['id']}/progress", json=report).is_success
        assert job(admin, made)["notice"] == shown


def test_leases_that_ended_while_the_server_was_away_get_one_more(platform, admin, worker):
    submit(admin)
    held = claim(worker)
    platform.clock.forward(3600)
    platform.jobs = again = type(platform.jobs)(
        platform.uow, platform.clock, 30, artifacts=platform.artifacts
    )
    assert again.expire_leases() == 0
    beat = {"attempt": 1, "lease": held["lease"]}
    platform.clock.forward(20)
    assert worker.post(f"/v1/worker/jobs/{held['id']}/heartbeat", json=beat).is_success
    platform.clock.forward(20)
    assert again.expire_leases() == 0
    platform.clock.forward(20)
    assert again.expire_leases() == 1


def test_a_flood_of_one_project_hides_nobody(platform, admin, worker, monkeypatch):
    monkeypatch.setattr(queues, "MAX_QUEUED", 4)
    for _ in range(10):
        submit(admin, project="a")
        platform.clock.forward(1)
    modest = submit(admin, project="b")
    assert job(admin, modest)["position"] == 2
    assert [claim(worker)["spec"]["project"] for _ in range(3)] == ["a", "b", "a"]


def test_jobs_that_no_cluster_can_hold_hide_none_that_one_can(platform, admin, worker, monkeypatch):
    monkeypatch.setattr(queues, "MAX_QUEUED", 4)
    for _ in range(10):
        submit(admin, resources={"gpus_per_worker": 8})
        platform.clock.forward(1)
    small = submit(admin)
    assert claim(worker, capacity=SMALL)["id"] == small["id"]


def test_age_counts_among_priorities_in_a_long_queue(platform, admin, worker, monkeypatch):
    monkeypatch.setattr(queues, "MAX_QUEUED", 2)
    old = submit(admin, priority=-10)["id"]
    platform.clock.forward(3 * 3600)
    middle = [submit(admin, priority=0)["id"] for _ in range(3)]
    platform.clock.forward(7 * 3600)
    high = [submit(admin, priority=3)["id"] for _ in range(3)]
    assert [claim(worker)["id"] for _ in range(3)] == [*middle]
    assert [claim(worker)["id"] for _ in range(3)] == high
    assert claim(worker)["id"] == old
