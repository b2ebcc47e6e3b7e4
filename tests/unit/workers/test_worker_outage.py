"""A server that is away, or answers nonsense, must not cost what was trained."""

from __future__ import annotations

import hashlib
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.errors import Code, Exit
from schemas.job import HeartbeatReply, JobCause, JobOrder, JobProgress, JobState, MetricPoint
from schemas.jobfile import JobSpec
from tests.unit.workers.fake_api import AGENT_TOKEN, FakeApi
from workers.blame import blame
from workers.client import PATIENCE, TELL_SECONDS, Api
from workers.distributed.train import Fitted
from workers.driver import main as driver
from workers.driver.ending import Ending
from workers.driver.places import package_folder
from workers.driver.reporter import MARGIN, Final, Reporter
from workers.errors import (
    ApiError,
    ApiUnavailableError,
    ClusterError,
    JobFailed,
    LeaseLostError,
    RefusedError,
)
from workers.optimization.pipeline import Training, build
from workers.order import SAID_FAILED, Order, order_environment
from workers.settings import Connection
from workers.sweep.search import Best
from workers.task import load_task
from workers.training import loop
from workers.training.local import LocalEngine

SPEC = JobSpec(name="x", task="a:B", stop={"target": 0.9})
JOB = "job_0000000000000000"
LEASE = 30.0
NONSENSE = ApiError("not a HeartbeatReply")
AWAY = ApiUnavailableError("away")


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


class Sender:
    """Answers with what a test lists, the last of it for ever."""

    def __init__(self, *answers: Exception | HeartbeatReply) -> None:
        self.answers = list(answers)
        self.messages: list[JobProgress] = []

    def progress(self, job: str, progress: JobProgress) -> HeartbeatReply:
        assert job == JOB
        self.messages.append(progress)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


OK = HeartbeatReply(cancel=False, lease_seconds=LEASE)


class Told:
    """What a reporter said when it stopped."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.event = threading.Event()

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)
        self.event.set()


def reporter_of(sender: Sender, told: Told, clock: Clock) -> Reporter:
    found = Reporter(sender, JOB, 1, LEASE, told, wait=clock.wait, clock=clock)
    found.start()
    return found


@pytest.fixture
def server():
    api = FakeApi()
    yield api
    api.close()


@pytest.mark.parametrize(
    "error",
    [
        AWAY,
        NONSENSE,
        RefusedError("no", status=422, code=Code.INVALID),
        LeaseLostError("no", status=409, code=Code.LEASE_LOST),
        ClusterError("gone"),
    ],
)
def test_what_the_machinery_did_is_never_the_users(error) -> None:
    assert blame(error).cause is JobCause.DRIVER_DIED


def test_an_upload_outlasts_an_outage_of_minutes(server, tmp_path: Path, caplog) -> None:
    job = server.submit(SPEC)
    with Api(Connection(url=server.url, token=AGENT_TOKEN)) as agent:
        agent.claim("a")
    clock = Clock()
    connection = Connection(url=server.url, token=job.token)
    path = tmp_path / "f"
    path.write_bytes(b"model")
    server.failures = [503] * 60
    with Api(connection, patience=PATIENCE, wait=clock.wait, clock=clock) as api:
        assert api.upload(hashlib.sha256(b"model").hexdigest(), path).created
    assert clock.now - 1000 > 120
    said = [r.getMessage() for r in caplog.records if r.name == "workers.client"]
    assert set(said) == {"cannot use the server: it answered 503; trying again"}
    assert 2 <= len(said) <= (clock.now - 1000) / TELL_SECONDS


def test_an_upload_is_given_up_at_last(server, tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "f"
    path.write_bytes(b"model")
    server.failures = [503] * 5000
    connection = Connection(url=server.url, token="t")
    with (
        Api(connection, patience=60, wait=clock.wait, clock=clock) as api,
        pytest.raises(ApiUnavailableError),
    ):
        api.upload("0" * 64, path)
    assert 60 <= clock.now - 1000 < 70


def test_the_last_word_waits_for_the_server_longer_than_a_lease() -> None:
    clock, told = Clock(), Told()
    sender = Sender(*[AWAY] * 100, NONSENSE, OK)
    reporter = reporter_of(sender, told, clock)
    assert reporter.finish(Final(JobState.SUCCEEDED, model="x", version=1), seconds=30)
    assert clock.now - 1000 > LEASE + MARGIN
    assert len({m.seq for m in sender.messages}) == 1, "one message, repeated"
    assert told.reasons == []


@pytest.mark.parametrize("error", [AWAY, NONSENSE])
def test_a_last_word_that_was_never_answered_was_not_heard(error) -> None:
    clock, told = Clock(), Told()
    reporter = reporter_of(Sender(error), told, clock)
    assert not reporter.finish(Final(JobState.SUCCEEDED), seconds=30)
    assert told.event.wait(10)
    assert "the lease has been over for" in told.reasons[0]
    assert PATIENCE < clock.now - 1000 < PATIENCE + LEASE + 20


def test_training_ends_soon_after_a_lease_that_cannot_be_renewed() -> None:
    clock, told = Clock(), Told()
    reporter = reporter_of(Sender(AWAY), told, clock)
    reporter.metrics([MetricPoint(epoch=1, at=datetime.now(UTC), values={"accuracy": 0.5})])
    assert told.event.wait(10)
    assert LEASE + MARGIN < clock.now - 1000 < LEASE + MARGIN + 20


def test_after_training_there_is_more_time() -> None:
    clock, told = Clock(), Told()
    reporter = reporter_of(Sender(AWAY), told, clock)
    reporter.enter(JobState.EXPORTING)
    assert told.event.wait(20)
    assert clock.now - 1000 > PATIENCE


def test_a_reporter_that_fails_says_so_and_was_not_heard() -> None:
    clock, told = Clock(), Told()
    reporter = reporter_of(Sender(ZeroDivisionError("odd")), told, clock)
    assert not reporter.finish(Final(JobState.SUCCEEDED), seconds=10)
    assert told.reasons == ["reporting failed: ZeroDivisionError: odd"]


def test_a_last_word_that_was_answered_stands_even_if_a_cancel_came_with_it() -> None:
    told = Told()
    cancelled = HeartbeatReply(cancel=True, lease_seconds=LEASE)
    reporter = reporter_of(Sender(cancelled), told, Clock())
    assert reporter.finish(Final(JobState.SUCCEEDED), seconds=10)
    assert told.reasons == []


def test_text_that_utf8_cannot_carry_does_not_end_a_job(server) -> None:
    job = server.submit(SPEC)
    with Api(Connection(url=server.url, token=AGENT_TOKEN)) as agent:
        agent.claim("a")
    told = Told()
    with Api(Connection(url=server.url, token=job.token)) as api:
        reporter = Reporter(api, job.id, 1, LEASE, told)
        reporter.start()
        reporter.log("info", "a\ud800b")
        assert reporter.finish(Final(JobState.FAILED, detail="x\udcff" * 5000), seconds=10)
    assert [line.text for line in job.logs] == ["a?b"]
    assert job.detail == "x?" * 4000
    assert told.reasons == []


def run_driver(server, monkeypatch, tmp_path, outcome) -> tuple[int, object]:
    job = server.submit(SPEC)
    with Api(Connection(url=server.url, token=AGENT_TOKEN)) as agent:
        claim = agent.claim("a")
    connection = Connection(url=server.url, token=AGENT_TOKEN)
    for name, value in order_environment(claim, connection, str(tmp_path)).items():
        monkeypatch.setenv(name, value)

    def run_job(*_: object) -> Final:
        if isinstance(outcome, Exception):
            raise outcome
        return Final(JobState.SUCCEEDED, model="x", version=1)

    monkeypatch.setattr(driver, "run_job", run_job)
    # Where nothing was said, the reporter lives on, and would end this process with its lease.
    monkeypatch.setattr(driver, "_cut", Told())
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    return driver.main(), job


@pytest.mark.parametrize("error", [AWAY, RefusedError("no", status=404, code=Code.NOT_FOUND)])
def test_a_driver_that_cannot_use_the_api_leaves_the_job_to_its_agent(
    server, monkeypatch, tmp_path, error
) -> None:
    code, job = run_driver(server, monkeypatch, tmp_path, error)
    assert code not in {Exit.OK, SAID_FAILED}
    assert job.state is JobState.RUNNING, "not FAILED: that would be its end"


def test_a_driver_whose_end_was_heard_says_so_by_its_exit_code(
    server, monkeypatch, tmp_path
) -> None:
    code, job = run_driver(server, monkeypatch, tmp_path, ValueError("x"))
    assert (code, job.state) == (SAID_FAILED, JobState.FAILED)
    code, job = run_driver(server, monkeypatch, tmp_path, None)
    assert (code, job.state) == (Exit.OK, JobState.SUCCEEDED)


def test_what_was_trained_is_registered_through_an_outage(server, monkeypatch, tmp_path) -> None:
    spec = JobSpec(
        name="tiny",
        task="workers.recipes.digits:Digits",
        config={"width": 0.25},
        stop={"max_epochs": 1, "require_target": False},
        optimize={"int8": False},
    )
    engine = LocalEngine("accuracy")
    loop.run(load_task(spec.task, spec.config, spec.seed), spec, engine)
    best = Best(spec, Fitted(engine.best, 1, engine.reports[0]["accuracy"]), (), {})

    def train(*_: object) -> Best:
        server.failures = [503] * 20
        return best

    monkeypatch.setattr(driver, "_train", train)
    job = server.submit(spec)
    with Api(Connection(url=server.url, token=AGENT_TOKEN)) as agent:
        claim = agent.claim("a")
    clock, told = Clock(), Told()
    connection = Connection(url=server.url, token=job.token)
    made = JobOrder(id=job.id, attempt=claim.attempt, spec=spec, lease_seconds=LEASE)
    order = Order(made, connection, str(tmp_path))
    with Api(connection, patience=PATIENCE, wait=clock.wait, clock=clock) as api:
        reporter = Reporter(api, job.id, 1, LEASE, told, wait=clock.wait)
        final = driver.run_job(order, api, reporter, Ending(reporter))
    assert (final.state, final.model, final.version) == (JobState.SUCCEEDED, "tiny", 1)
    (manifest,) = server.models["tiny"]
    assert manifest.lineage.code_sha256 == loop.unpack(engine.best)["code_sha256"]
    assert manifest.lineage.epochs == 1
    assert (manifest.lineage.job, manifest.lineage.attempt) == (job.id, 1)
    assert {f.sha256 for f in manifest.files()} <= set(server.artifacts)


def test_a_base_job_goes_on_from_the_versions_weights(server, monkeypatch, tmp_path) -> None:
    spec = JobSpec(
        name="again",
        model="tiny",
        task="workers.recipes.digits:Digits",
        config={"width": 0.25},
        base="tiny@1",
        optimize={"int8": False},
    )
    task = load_task(spec.task, spec.config, spec.seed)
    training = Training(task.model().state_dict(), "a" * 64, "d" * 64, 7)
    first = build(task, spec, training, tmp_path / "first", enter=lambda _: None)
    for digest, path in first.files():
        server.artifacts[digest] = path.read_bytes()
    job = server.submit(spec)
    with Api(Connection(url=server.url, token=AGENT_TOKEN)) as agent:
        claim = agent.claim("a")
    order = JobOrder(
        id=job.id,
        attempt=claim.attempt,
        spec=spec,
        lease_seconds=LEASE,
        manifest=first.manifest,
    )
    monkeypatch.setattr(driver, "_train", None)
    connection = Connection(url=server.url, token=job.token)
    with Api(connection) as api:
        reporter = Reporter(api, job.id, 1, LEASE, Told())
        final = driver.run_job(
            Order(order, connection, str(tmp_path / "job")), api, reporter, Ending(reporter)
        )
    assert final.state is JobState.SUCCEEDED
    manifest = server.models["tiny"][-1]
    assert manifest.lineage.parent == "tiny@1"
    assert (manifest.lineage.code_sha256, manifest.lineage.epochs) == ("d" * 64, 7)
    assert manifest.variants[0].file.sha256 == first.manifest.variants[0].file.sha256
    assert manifest.weights.sha256 == first.manifest.weights.sha256

    bare = order.model_copy(
        update={"manifest": first.manifest.model_copy(update={"weights": None})}
    )
    with Api(connection) as api, pytest.raises(JobFailed, match="registered without its weights"):
        driver.run_job(Order(bare, connection, str(tmp_path)), api, reporter, Ending(reporter))
    other = order.model_copy(update={"spec": spec.model_copy(update={"config": {"width": 0.5}})})
    with Api(connection) as api, pytest.raises(JobFailed, match="weights of tiny@1 do not fit"):
        driver.run_job(Order(other, connection, str(tmp_path)), api, reporter, Ending(reporter))


def test_each_attempt_builds_its_own_package(tmp_path: Path) -> None:
    with package_folder(str(tmp_path), 1) as first:
        first.mkdir()
    with package_folder(str(tmp_path), 2) as second:
        assert second != first
        assert not first.exists()
