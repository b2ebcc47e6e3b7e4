"""The agent's decisions and its memory, over a real HTTP server and drivers in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from schemas.errors import Code as Reason
from schemas.job import Capacity, JobCause, JobState
from schemas.jobfile import JobSpec
from tests.unit.workers.fake_api import AGENT_TOKEN, FakeApi, FakeJob
from workers.agent.agent import Agent
from workers.agent.claims import Claims
from workers.agent.code import CodeCache
from workers.agent.follow import AWAY_SECONDS, DriverState, Seen
from workers.agent.launch import Launch, Launcher, in_background, local_job_dir
from workers.client import Api
from workers.errors import ClusterError, RefusedError, UsageError
from workers.order import JOB_DIR, MARK, NO_ENVIRONMENT, REQUIREMENTS, read_order
from workers.settings import Connection

SPEC = JobSpec(name="x", task="a:B", stop={"target": 0.9}, max_attempts=2)


AWAY = ClusterError("away")


class Cluster:
    """Drivers that do what a test says."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.started: dict[str, dict[str, str]] = {}
        self.stopped: list[str] = []
        self.away = False
        self.stubborn = False
        self.looks = 0
        self.code: dict[str, Path | None] = {}

    def submit(
        self, submission: str, environment: Mapping[str, str], python: str, code: Path | None
    ) -> None:
        assert python
        if self.away:
            raise AWAY
        assert submission not in self.started, "a driver is started once"
        self.started[submission] = dict(environment)
        self.code[submission] = code
        self.seen[submission] = Seen(DriverState.ACTIVE)

    def capacity(self) -> Capacity:
        if self.away:
            raise AWAY
        return Capacity(nodes=2, cpus=8.0)

    def look(self, submission: str) -> Seen:
        self.looks += 1
        if self.away:
            raise AWAY
        return self.seen.get(submission, Seen(DriverState.MISSING))

    def stop(self, submission: str) -> None:
        self.stopped.append(submission)
        if self.stubborn:
            return
        self.seen[submission] = Seen(DriverState.ENDED, None)


def at_once(call: Callable[[], None]) -> Launch:
    launch = in_background(call)
    assert launch.done.wait(20)
    return launch


@pytest.fixture
def server():
    api = FakeApi()
    yield api
    api.close()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


class World:
    def __init__(self, server: FakeApi, cluster: Cluster, home: Path) -> None:
        self.server, self.cluster, self.home = server, cluster, home
        self.killed: list[str] = []
        self.now = 100.0
        self.agent = self.start()

    def start(self, slots: int = 1, background: Callable[..., Launch] = at_once) -> Agent:
        connection = Connection(url=self.server.url, token=AGENT_TOKEN)
        code = CodeCache(self.home / "agent" / "code")
        return Agent(
            "a",
            api=Api(connection, tries=1, wait=lambda _: None),
            drivers=self.cluster,
            claims=Claims(self.home / "agent" / "claims"),
            launch=Launcher(
                drivers=self.cluster,
                connection=connection,
                job_dir=local_job_dir(self.home),
                code=code,
                python="python",
            ),
            slots=slots,
            kill=self.killed.append,
            tidy=code.prune,
            background=background,
        )

    def tick(self, n: int = 1) -> None:
        for _ in range(n):
            self.agent.tick(self.now)
            self.now += 1.0

    @property
    def files(self) -> list[Path]:
        return sorted((self.home / "agent" / "claims").iterdir())


@pytest.fixture
def world(server, cluster, tmp_path) -> World:
    return World(server, cluster, tmp_path)


def test_a_claimed_job_gets_a_driver_with_its_order_and_no_agent_token(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    (environment,) = world.cluster.started.values()
    order = read_order(environment, Api)
    assert order.job.id == job.id
    assert order.job.spec == SPEC
    assert order.connection.token == job.token
    assert REQUIREMENTS not in environment
    assert environment[MARK] == f"{job.id}-1"
    assert environment[JOB_DIR] == str(world.home / "jobs" / job.id)
    assert AGENT_TOKEN not in json.dumps(environment)
    assert job.lease not in json.dumps(environment)
    assert world.server.capacities == [Capacity(nodes=2, cpus=8.0)]
    (path,) = world.files
    assert path.stat().st_mode & 0o777 == 0o600


def test_one_job_at_a_time(world) -> None:
    world.server.submit(SPEC)
    world.server.submit(SPEC)
    world.tick(5)
    assert len(world.cluster.started) == 1


def test_a_driver_that_had_its_say_is_cleaned_up_and_forgotten(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    job.state = JobState.SUCCEEDED
    world.cluster.seen[f"{job.id}-1"] = Seen(DriverState.ENDED, 0)
    world.tick(2)
    assert set(world.killed) == {f"{job.id}-1"}
    assert world.files == []
    assert job.outcomes == []


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (None, "was killed"),
        (0, "exit code 0 before it reported an end"),
        (1, "exit code 1 before it reported an end; its last line: boom"),
    ],
)
def test_a_driver_that_died_is_spoken_for(world, code, says) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    world.cluster.seen[f"{job.id}-1"] = Seen(DriverState.ENDED, code, "boom")
    world.tick(2)
    (outcome,) = job.outcomes
    assert outcome.cause is JobCause.DRIVER_DIED
    assert says in outcome.detail
    assert not outcome.cancelled
    world.tick()
    assert f"{job.id}-2" in world.cluster.started, "the job is queued again and claimed"


def test_a_cancel_stops_the_driver_and_says_so(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    job.cancel = True
    world.tick(6)
    assert world.cluster.stopped == [f"{job.id}-1"]
    assert world.killed[-1] == f"{job.id}-1"
    assert [o.cancelled for o in job.outcomes] == [True]
    assert job.state is JobState.CANCELLED
    assert world.files == []


def test_a_driver_that_ended_itself_at_a_cancel_counts_as_cancelled(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    job.cancel = True
    world.cluster.seen[f"{job.id}-1"] = Seen(DriverState.ENDED, 130)
    world.tick(2)
    assert [o.cancelled for o in job.outcomes] == [True]


def test_a_lost_lease_stops_the_driver_and_nothing_is_said(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    job.attempt = 2
    world.tick(6)
    assert world.cluster.stopped == [f"{job.id}-1"]
    assert job.outcomes == []
    assert not any(path.name.startswith(f"{job.id}-1") for path in world.files)


def again(world) -> FakeJob:
    """A job whose first attempt still runs here while its second is handed out."""
    world.agent = world.start(slots=2)
    job = world.server.submit(SPEC)
    world.tick()
    job.state = JobState.QUEUED
    world.cluster.stubborn = True
    world.tick(2)
    assert job.attempt == 2
    return job


def test_an_attempt_starts_only_when_the_one_before_has_ended(world) -> None:
    job = again(world)
    beats = job.heartbeats
    world.tick(4)
    assert list(world.cluster.started) == [f"{job.id}-1"]
    assert set(world.cluster.stopped) == {f"{job.id}-1"}
    assert job.heartbeats > beats, "the new lease is kept meanwhile"
    world.cluster.seen[f"{job.id}-1"] = Seen(DriverState.ENDED, None)
    world.tick(2)
    assert list(world.cluster.started) == [f"{job.id}-1", f"{job.id}-2"]
    assert job.outcomes == []
    assert [path.name for path in world.files] == [f"{job.id}-2.json"]


def test_an_attempt_that_waits_is_still_held_back_after_a_restart(world) -> None:
    job = again(world)
    world.agent = world.start(slots=2)
    world.tick(4)
    assert list(world.cluster.started) == [f"{job.id}-1"]


def test_an_attempt_that_is_cancelled_while_it_waits_never_starts(world) -> None:
    job = again(world)
    job.cancel = True
    world.tick(8)
    assert [o.cancelled for o in job.outcomes] == [True]
    world.cluster.seen[f"{job.id}-1"] = Seen(DriverState.ENDED, None)
    world.tick(2)
    assert list(world.cluster.started) == [f"{job.id}-1"]
    assert world.files == []


def test_a_restarted_agent_goes_on_following(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    world.agent = world.start()
    beats = job.heartbeats
    world.tick(4)
    assert job.heartbeats > beats
    assert list(world.cluster.started) == [f"{job.id}-1"], "no second driver"
    job.state = JobState.SUCCEEDED
    world.cluster.seen[f"{job.id}-1"] = Seen(DriverState.ENDED, 0)
    world.tick(2)
    assert world.files == []


def test_a_claim_that_was_never_submitted_is_submitted_after_a_restart(world) -> None:
    job = world.server.submit(SPEC)
    world.agent = world.start(background=lambda _: Launch())  # never done: killed in it
    world.tick()
    assert len(world.files) == 1
    assert world.cluster.started == {}
    world.agent = world.start()
    world.tick()
    assert list(world.cluster.started) == [f"{job.id}-1"]


def test_a_driver_that_a_new_cluster_does_not_know_has_died(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    world.cluster.seen.clear()
    world.agent = world.start()
    world.tick(2)
    (outcome,) = job.outcomes
    assert outcome.cause is JobCause.DRIVER_DIED
    assert "started anew" in outcome.detail


def test_an_outcome_that_does_not_arrive_is_said_again(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    world.cluster.seen[f"{job.id}-1"] = Seen(DriverState.ENDED, 1)
    world.server.failures = [503] * 4
    world.tick(2)
    assert job.outcomes == []
    assert len(world.files) == 1, "not forgotten"
    world.server.failures = []
    world.tick(2)
    assert len(job.outcomes) == 1


def test_claims_wait_longer_while_the_server_is_away(world) -> None:
    world.server.failures = [503] * 100
    world.tick(60)
    assert world.server.requests.count("POST /v1/worker/claim") < 15


def test_a_damaged_claim_is_put_aside(world) -> None:
    folder = world.home / "agent" / "claims"
    (folder / "job_x-1.json").write_text("{")
    world.agent = world.start()
    assert [p.name for p in world.files] == ["job_x-1.damaged"]
    world.server.submit(SPEC)
    world.tick()
    assert len(world.cluster.started) == 1


def test_a_driver_without_an_order_says_who_starts_it() -> None:
    with pytest.raises(UsageError, match="started by the agent; missing: ARGOSY_URL"):
        read_order({}, Api)


def test_a_driver_of_an_earlier_attempt_is_told_so(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    (environment,) = world.cluster.started.values()
    job.attempt = 2
    with pytest.raises(UsageError, match="the job is at attempt 2"):
        read_order(environment, Api)


def test_no_job_is_taken_for_a_cluster_that_is_away(world) -> None:
    world.cluster.away = True
    world.server.submit(SPEC)
    world.tick(5)
    assert "POST /v1/worker/claim" not in world.server.requests
    world.cluster.away = False
    world.tick(20)
    assert len(world.cluster.started) == 1


def test_leases_are_kept_while_the_cluster_hangs_and_it_is_asked_once_a_round(world) -> None:
    world.agent = world.start(slots=3)
    jobs = [world.server.submit(SPEC) for _ in range(3)]
    world.tick(5)
    world.cluster.away = True
    beats, looks = [job.heartbeats for job in jobs], world.cluster.looks
    world.tick(10)
    assert all(job.heartbeats >= before + 2 for job, before in zip(jobs, beats, strict=True))
    assert world.cluster.looks == looks + 10
    world.now += AWAY_SECONDS
    beats = [job.heartbeats for job in jobs]
    world.tick(5)
    assert [job.heartbeats for job in jobs] == beats, "another agent may do better"
    world.cluster.away = False
    world.tick(5)
    assert all(job.heartbeats > before for job, before in zip(jobs, beats, strict=True))
    assert [len(job.outcomes) for job in jobs] == [0, 0, 0]


def test_a_cancel_kills_what_is_here_even_if_the_cluster_hangs(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    job.cancel = True
    world.tick(3)
    world.cluster.seen[f"{job.id}-1"] = Seen(DriverState.ACTIVE)
    world.cluster.away = True
    world.killed.clear()
    world.tick(10)
    assert len(world.killed) >= 2


def test_a_stubborn_driver_is_stopped_and_killed_again(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    world.cluster.stubborn = True
    job.cancel = True
    world.tick(12)
    assert len(world.cluster.stopped) >= 2
    assert len(world.killed) >= 2


def test_a_slow_launch_keeps_the_lease_of_its_job_and_of_others(world) -> None:
    release, calls = threading.Event(), []

    def slow(call: Callable[[], None]) -> Launch:
        calls.append(call)
        launch = Launch()
        if release.is_set():
            call()
            launch.done.set()
        return launch

    world.agent = world.start(background=slow)
    job = world.server.submit(SPEC)
    world.tick(8)
    assert len(calls) == 1
    assert job.heartbeats >= 2
    assert world.cluster.started == {}


def test_a_driver_whose_requirements_cannot_be_met_ends_the_job_as_such(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    says = "requirements.txt: No matching distribution found for nothing==9"
    world.cluster.seen[f"{job.id}-1"] = Seen(DriverState.ENDED, NO_ENVIRONMENT, says)
    world.tick(2)
    (outcome,) = job.outcomes
    assert (outcome.cause, outcome.detail) == (JobCause.ENVIRONMENT, says)


def test_a_launch_that_never_works_is_given_up_as_the_machinerys_fault(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    job2 = world.server.submit(SPEC)
    world.cluster.seen[f"{job.id}-1"] = Seen(DriverState.ENDED, 0)
    job.state = JobState.SUCCEEDED

    def refuse(*_: object) -> None:
        raise AWAY

    world.cluster.submit = refuse
    world.tick(3)
    assert job2.attempt == 1
    world.now += AWAY_SECONDS + 1
    world.tick(20)
    assert [o.cause for o in job2.outcomes][:1] == [JobCause.DRIVER_DIED]
    assert "could not be started" in job2.outcomes[0].detail


def test_a_driver_that_was_started_but_not_noted_is_not_forgotten_at_a_cancel(world) -> None:
    job = world.server.submit(SPEC)
    world.tick()
    (path,) = world.files
    path.write_text(path.read_text().replace('"submitted":true', '"submitted":false'))
    job.cancel = True
    world.agent = world.start(background=lambda _: Launch())
    world.agent.following = [
        one.__class__(one.claimed, one.state.__class__(6.0, cancel=True))
        for one in world.agent.following
    ]
    world.cluster.stubborn = True
    world.tick(1)
    assert job.outcomes == [], "its driver still runs"


def test_an_artifact_that_is_refused_ends_the_job(world) -> None:
    code = {"sha256": "0" * 64, "size": 10, "files": 1}
    job = world.server.submit(JobSpec.model_validate(SPEC.model_dump() | {"code": code}))
    world.tick(3)
    (outcome,) = job.outcomes
    assert outcome.cause is JobCause.ENVIRONMENT
    assert "code cannot be fetched" in outcome.detail
    assert world.cluster.started == {}


def test_a_lease_that_ended_during_a_launch_is_no_fault_of_the_code() -> None:
    gone = RefusedError("x", status=401, code=Reason.UNAUTHENTICATED)
    with pytest.raises(RefusedError):
        CodeCache(Path("/tmp")).folder_of(  # noqa: S108 - nothing is written
            JobSpec.model_validate(
                SPEC.model_dump() | {"code": {"sha256": "1" * 64, "size": 10, "files": 1}}
            ).code,
            lambda *_: (_ for _ in ()).throw(gone),
        )
