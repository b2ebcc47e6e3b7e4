"""What the server keeps of a job's course, by reports over HTTP."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from orchestrator.api import events
from orchestrator.api.events import _fetch, _pages, _start
from orchestrator.client.sse import Parser
from orchestrator.domain.logs import LogCap, LogTotals, cut
from orchestrator.services import job_history, keys
from orchestrator.services.retention import Retention
from schemas.access import Role
from schemas.api import Event

SPEC = {"name": "digits", "task": "m:T", "stop": {"target": 0.97}, "max_attempts": 3}


class Driver:
    """A running job, and who reports on it."""

    def __init__(self, platform, admin) -> None:
        self.platform, self.admin = platform, admin
        self.worker = platform.client(platform.key(Role.WORKER))
        self.id = admin.post("/v1/jobs", json=SPEC).json()["id"]
        self.claim()

    def claim(self):
        claim = self.worker.post("/v1/worker/claim", json={"agent": "a"}).json()
        assert claim["id"] == self.id
        self.attempt, self.seq = claim["attempt"], 0
        self.client = self.platform.client(claim["job_token"])

    def now(self):
        return self.platform.clock().isoformat()

    def report(self, **more):
        body = {"attempt": self.attempt, "seq": self.seq, **more}
        self.seq += 1
        answer = self.client.post(f"/v1/jobs/{self.id}/progress", json=body)
        assert answer.status_code == 200, answer.text
        return body

    def points(self, values, trial=0, start=1):
        return [
            {"epoch": e, "trial": trial, "at": self.now(), "values": {"accuracy": v, "loss": 1 - v}}
            for e, v in enumerate(values, start)
        ]

    def lines(self, *texts, level="info"):
        return [{"at": self.now(), "level": level, "text": text} for text in texts]

    def view(self):
        return self.admin.get(f"/v1/jobs/{self.id}").json()

    def get(self, what, status=200, **query):
        answer = self.admin.get(f"/v1/jobs/{self.id}/{what}", params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    def events(self, kind):
        with self.platform.uow.read() as tx:
            found = tx.events.after(0, self.id, 1000)
        return [event for event in found if event.kind == kind]


@pytest.fixture
def job(platform, admin):
    return Driver(platform, admin)


def texts(page):
    return [line["text"] for line in page["items"]]


def test_best_and_last_figures_follow_the_reports(job):
    job.report(metrics=job.points([0.5, 0.8, 0.6]))
    job.report(metrics=job.points([0.7], start=4))
    view = job.view()
    assert view["best"] == {"accuracy": 0.8, "loss": pytest.approx(0.2), "epoch": 2.0}
    assert view["last"]["accuracy"] == 0.7


def test_of_a_sweep_the_best_is_over_all_trials(job):
    trials = [
        {"number": 1, "parameters": {"config.lr": 0.1}, "state": "done", "epochs": 2, "best": 0.9},
        {"number": 2, "parameters": {"config.lr": 0.2}, "state": "running", "epochs": 2},
    ]
    job.report(metrics=job.points([0.5, 0.9], trial=1), trials=trials)
    job.report(metrics=job.points([0.6, 0.8], trial=2))
    view = job.view()
    assert (view["best"]["accuracy"], view["best"]["trial"]) == (0.9, 1)
    assert [trial["number"] for trial in view["trials"]] == [1, 2]
    assert view["trials"][1]["detail"] is None
    one = job.get("metrics", trial=2)["items"]
    assert [(p["trial"], p["epoch"]) for p in one] == [(2, 1), (2, 2)]
    every = job.get("metrics", limit=1)
    assert [(p["trial"], p["epoch"]) for p in every["items"]] == [(1, 1), (2, 1)]
    rest = job.get("metrics", cursor=every["next"])["items"]
    assert [(p["trial"], p["epoch"]) for p in rest] == [(1, 2), (2, 2)]


def test_a_curve_with_few_points_has_its_peaks(job):
    values = [0.5 + (e % 7) / 100 for e in range(900)]
    values[333], values[777] = 0.99, 0.01
    job.report(metrics=job.points(values))
    page = job.get("metrics", points=60)
    epochs = [p["epoch"] for p in page["items"]]
    assert len(epochs) <= 60
    assert {1, 334, 778, 900} <= set(epochs)
    assert epochs == sorted(epochs)
    assert job.get("metrics", points=60, cursor=page["next"])["items"] == []
    assert len(job.get("metrics", points=5000)["items"]) == 900
    tail = job.get("metrics", points=60, cursor="895")["items"]
    assert [p["epoch"] for p in tail] == [896, 897, 898, 899, 900]


def test_a_curve_of_all_trials_shares_the_points_among_them(job):
    for trial in (1, 2, 3):
        job.report(metrics=job.points([0.1 * trial] * 300, trial=trial))
    items = job.get("metrics", points=90)["items"]
    assert len(items) <= 90
    for trial in (1, 2, 3):
        own = [p["epoch"] for p in items if p["trial"] == trial]
        assert (own[0], own[-1]) == (1, 300)


def test_a_long_training_is_thinned_and_keeps_its_extremes(job, monkeypatch):
    monkeypatch.setattr(job_history, "METRICS_CAP", 50)
    values = [0.5 + (e % 11) / 1000 for e in range(1000)]
    values[7], values[500] = 0.95, 0.05
    for start in range(0, 1000, 40):
        job.report(metrics=job.points(values[start : start + 40], start=start + 1))
        with job.platform.uow.read() as tx:
            assert len(tx.job_history.series(job.id, 0)) <= 100
    with job.platform.uow.read() as tx:
        epochs = [point.epoch for point in tx.job_history.series(job.id, 0)]
    assert len(epochs) > 50
    assert {1, 8, 501, 1000} <= set(epochs)
    assert set(range(950, 1001)) <= set(epochs), "the newer half is whole"


def test_logs_are_searched_by_text_and_level_and_read_on_from_there(job):
    job.report(logs=job.lines("Start", "epoch 1", "epoch 2"))
    job.report(logs=job.lines("50% of EPOCH 3", "lost", level="error"))
    assert texts(job.get("logs", search="epoch")) == ["epoch 1", "epoch 2", "50% of EPOCH 3"]
    assert texts(job.get("logs", search="50%")) == ["50% of EPOCH 3"]
    assert texts(job.get("logs", search="%")) == ["50% of EPOCH 3"]
    assert texts(job.get("logs", level="warning")) == ["50% of EPOCH 3", "lost"]
    assert texts(job.get("logs", level="error", search="e")) == ["50% of EPOCH 3"]
    page = job.get("logs", search="nothing like it")
    assert page["items"] == []
    job.report(logs=job.lines("later"))
    assert texts(job.get("logs", cursor=page["next"])) == ["later"]


def test_the_tail_of_a_log_is_followed(job):
    job.report(logs=job.lines(*(f"line {i}" for i in range(10))))
    page = job.get("logs", tail=3)
    assert texts(page) == ["line 7", "line 8", "line 9"]
    assert texts(job.get("logs", tail=2, search="line 1")) == ["line 1"]
    assert texts(job.get("logs", cursor=page["next"])) == []
    job.report(logs=job.lines("line 10"))
    assert texts(job.get("logs", cursor=page["next"])) == ["line 10"]
    full = job.get("logs", limit=4)
    assert texts(job.get("logs", limit=4, cursor=full["next"])) == [
        f"line {i}" for i in range(4, 8)
    ]


def test_a_log_that_grows_too_long_loses_its_oldest_lines_and_says_so(job, monkeypatch):
    monkeypatch.setattr(job_history, "LOG_CAP", LogCap(lines=50, size=10_000))
    for i in range(40):
        job.report(logs=job.lines(*(f"line {i * 7 + k}" for k in range(7))))
        assert len(job.get("logs", limit=500)["items"]) <= 50
    found = texts(job.get("logs", limit=500))
    dropped = 280 - (len(found) - 1)
    assert found[0] == (
        f"{dropped} earlier lines were dropped: a job keeps up to 50 lines and 0 MiB"
    )
    assert found[1:] == [f"line {i}" for i in range(dropped, 280)]
    with job.platform.uow.read() as tx:
        totals = tx.job_history.log_totals(job.id)
        sizes = tx.job_history.log_sizes(job.id, 0, 500)
    assert totals == LogTotals(len(sizes), sum(size for _, size in sizes), dropped)


def test_a_log_is_bounded_by_bytes_too(job, monkeypatch):
    monkeypatch.setattr(job_history, "LOG_CAP", LogCap(lines=1000, size=20_000))
    for i in range(12):
        job.report(logs=job.lines(*(f"{i}.{k}" + "ü" * 500 for k in range(3))))
        with job.platform.uow.read() as tx:
            assert sum(size for _, size in tx.job_history.log_sizes(job.id, 0, 500)) <= 20_000
    assert texts(job.get("logs", tail=1)) == ["11.2" + "ü" * 500]
    assert "earlier lines were dropped" in texts(job.get("logs", limit=1))[0]


def test_a_log_from_before_its_totals_were_kept_is_counted_once(job, monkeypatch):
    monkeypatch.setattr(job_history, "LOG_CAP", LogCap(lines=20, size=10_000))
    with job.platform.uow() as tx:
        lines = [job_history.LogLine(at=job.platform.clock(), text=f"{i}") for i in range(30)]
        tx.job_history.add_logs(job.id, lines)
    job.report(logs=job.lines("new"))
    found = texts(job.get("logs", limit=500))
    assert len(found) <= 20
    assert found[-1] == "new"


def test_the_newest_line_is_never_cut():
    totals = LogTotals(lines=2, size=100_000)
    made = cut(totals, [(1, 50_000), (2, 50_000)], LogCap(lines=10, size=10))
    assert made is not None
    assert (made.last, made.totals.lines, made.totals.dropped) == (1, 2, 1)
    assert cut(LogTotals(1, 99), [(1, 99)], LogCap(lines=10, size=10)) is None


@pytest.mark.parametrize(
    ("what", "query"),
    [
        ("logs", {"search": "x" * 201}),
        ("logs", {"level": "loud"}),
        ("logs", {"tail": 0}),
        ("logs", {"cursor": "x"}),
        ("metrics", {"points": 1}),
        ("metrics", {"points": 10**9}),
        ("metrics", {"trial": -1}),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(job, what, query):
    assert job.get(what, status=422, **query)["code"] == "invalid"


def test_cursors_beyond_every_number_find_nothing(job):
    job.report(logs=job.lines("a"), metrics=job.points([0.5]))
    assert job.get("logs", cursor="9" * 40)["items"] == []
    assert job.get("metrics", cursor="9" * 40)["items"] == []
    assert len(job.get("logs", cursor="-" + "9" * 40)["items"]) == 1


def test_a_search_for_a_nul_is_refused(job):
    job.report(logs=job.lines("ab"))
    job.get("logs", search="a\x00b", status=422)
    assert texts(job.get("logs", search="ab")) == ["ab"]


def test_the_profile_is_shown_once_it_is_there(job):
    missing = job.get("profile", status=404)
    assert "before training begins" in missing["hint"]
    profile = {
        "sha256": "a" * 64,
        "splits": [{"split": "train", "n": 10, "classes": {"0": 4, "1": 6}}],
        "baseline": {"n": 10},
        "problems": ["3 of 10 samples are duplicates"],
    }
    job.report(profile=profile)
    assert job.get("profile")["splits"][0]["classes"] == {"0": 4, "1": 6}
    assert job.view()["problems"] == ["3 of 10 samples are duplicates"]
    assert job.admin.get("/v1/jobs/job_x/profile").status_code == 404


def test_usage_is_kept_by_attempt_and_added_up(job):
    job.report(usage={"wall_seconds": 5, "cpu_seconds": 10})
    job.report(usage={"wall_seconds": 6, "cpu_seconds": 12})
    job.platform.clock.forward(31)
    job.platform.jobs.expire_leases()
    job.platform.clock.forward(31)
    job.claim()
    job.report(usage={"wall_seconds": 1, "cpu_seconds": 2})
    assert job.view()["usage"]["cpu_seconds"] == 14
    assert job.view()["usage"]["wall_seconds"] == 7


def live(job, done):
    return {"at": job.now(), "epoch": 1, "done": done, "total": 100, "samples_per_s": 5.5}


def test_only_the_newest_live_figures_are_kept(job):
    for done in range(5):
        job.report(live=live(job, done))
    (event,) = job.events("live")
    assert event.data["done"] == 4
    assert job.view()["live"]["done"] == 4
    assert len(job.events("job")) == 2, "live figures alone are no news of the job"


@pytest.mark.parametrize("end", ["failed", "cancelled", "silent"])
def test_a_job_that_runs_no_more_loses_its_live_figures(job, end):
    job.report(live=live(job, 1))
    if end == "failed":
        job.report(state="FAILED", cause="user_code", detail="no", live=live(job, 2))
    elif end == "cancelled":
        job.admin.post(f"/v1/jobs/{job.id}/cancel")
        job.platform.clock.forward(31)
        job.platform.jobs.expire_leases()
    else:
        job.platform.clock.forward(31)
        job.platform.jobs.expire_leases()
    assert job.view()["state"] == {"failed": "FAILED", "cancelled": "CANCELLED"}.get(end, "QUEUED")
    assert job.view()["live"] is None
    assert job.events("live") == []


def test_a_repeat_and_a_refused_report_leave_nothing(job):
    body = job.report(live=live(job, 1), logs=job.lines("once"), metrics=job.points([0.5]))
    job.seq -= 1
    job.report(**{**body, "logs": job.lines("twice"), "live": live(job, 2)})
    job.client.post(
        f"/v1/jobs/{job.id}/progress",
        json={"attempt": 1, "seq": 9, "state": "SUCCEEDED", "logs": job.lines("refused")},
    )
    assert texts(job.get("logs")) == ["once"]
    assert job.view()["live"]["done"] == 1


def test_a_reader_of_events_sees_live_figures_and_goes_on_after_replaced_ones(job):
    ctx = job.platform.app.state.context
    token = job.platform.key(Role.VIEWER)
    with ctx.uow.read() as tx:
        caller = keys.authenticate(tx, token, ctx.clock())

    async def read(after):
        found = []
        async for page in _pages(ctx, caller, after, job.id, None):
            found += [Event.model_validate_json(one.data) for one in Parser().feed(page)]
            if found and found[-1].kind == "live":
                return found
        return found

    job.report(live=live(job, 1))
    first = asyncio.run(read(0))
    assert first[-1].data["done"] == 1
    for done in range(2, 9):
        job.report(live=live(job, done))
    again = asyncio.run(read(_start(ctx, None, str(first[-1].id))))
    assert [event.data["done"] for event in again] == [8]


def test_events_are_streamed_over_http_as_they_are_made(job, monkeypatch):
    """A page that no response could send went unseen: streams ended as they began."""
    platform = job.platform

    def last_look(*args):
        platform.stopping.set()
        return _fetch(*args)

    monkeypatch.setattr(events, "_fetch", last_look)
    job.report(live=live(job, 1))
    reader = platform.client(platform.key(Role.VIEWER))
    answer = reader.get("/v1/events", params={"after": 0, "subject": job.id})
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = [Event.model_validate_json(one.data) for one in Parser().feed(answer.content)]
    assert found[-1].data["done"] == 1


def test_a_reader_of_one_kind_is_sent_no_other_and_never_looks_twice(job):
    ctx = job.platform.app.state.context
    token = job.platform.key(Role.VIEWER)
    with ctx.uow() as tx:
        caller = keys.authenticate(tx, token, ctx.clock())
        for n in range(3):
            tx.events.add("execution", "rol_1", {"n": n}, ctx.clock())
        tx.events.add("rollout", "rol_1", {"state": "PAUSED"}, ctx.clock())
        tx.events.add("execution", "rol_1", {"n": 3}, ctx.clock())
        newest = tx.events.last_id()
    text, last, full = _fetch(ctx, caller, 0, "rol_1", "rollout")
    found = [Event.model_validate_json(one.data) for one in Parser().feed(text)]
    assert [(one.kind, one.data) for one in found] == [("rollout", {"state": "PAUSED"})]
    assert (last, full) == (newest, False)
    assert _fetch(ctx, caller, last, "rol_1", "rollout") == (b"", newest, False)


def test_a_reader_with_a_number_from_elsewhere_hears_what_comes_next(job):
    ctx = job.platform.app.state.context
    newest = _start(ctx, None, None)
    assert newest > 0
    assert _start(ctx, None, "999999999999") == newest
    assert _start(ctx, 10**15, None) == newest
    assert _start(ctx, 0, None) == 0


def test_old_events_go_in_small_steps_and_new_ones_stay(job):
    platform = job.platform
    for i in range(25):
        with platform.uow() as tx:
            tx.events.add("job", job.id, {"i": i}, platform.clock())
    platform.clock.forward(15 * 86400)
    job.platform.jobs.expire_leases()
    newest = job.events("job")[-1]
    retention = Retention(platform.uow, platform.clock, batch=10)
    gone = []
    while more := retention.tick():
        gone.append(more)
    assert gone[:2] == [10, 10]
    assert [event.id for event in job.events("job")] == [newest.id]
    with platform.uow() as tx:
        old = platform.clock() - timedelta(days=20)
        tx.events.add("job", job.id, {}, old)
    assert retention.tick() == 0, "not every tick"
    platform.clock.forward(301)
    assert retention.tick() == 1, "also one that came after a younger one"


def test_events_beyond_the_number_go_whatever_their_age(job):
    platform = job.platform
    with platform.uow() as tx:
        for i in range(20):
            tx.events.add("job", job.id, {"i": i}, platform.clock())
    retention = Retention(platform.uow, platform.clock, rows=5, batch=4)
    for _ in range(10):
        retention.tick()
    assert [event.data["i"] for event in job.events("job")] == [15, 16, 17, 18, 19]
    platform.clock.forward(-3600)
    with platform.uow() as tx:
        tx.events.add("job", job.id, {"i": 20}, platform.clock())
    retention.tick()
    assert len(job.events("job")) == 5, "also when the clock was set back"
