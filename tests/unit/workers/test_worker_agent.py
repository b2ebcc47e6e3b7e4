"""The agent's decisions and its memory, over a real HTTP server and drivers in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from schemas.job import JobCause, JobClaim, JobState
from schemas.jobfile import JobSpec
from tests.unit.workers.fake_api import AGENT_TOKEN, FakeApi, FakeJob
from workers.agent import Agent, local_job_dir
from workers.claims import Claims
from workers.client import Api
from workers.driver import CLAIM, JOB_DIR, MARK, read_order
from workers.errors import ClusterError, UsageError
from workers.follow import DriverState, Seen
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

    def submit(self, submission: str, environment: Mapping[str, str], python: str) -> None:
        assert python
        if self.away:
            raise AWAY
        assert submission not in self.started, "a driver is started once"
        self.started[submission] = dict(environment)
        self.seen[submission] = Seen(DriverState.ACTIVE)

    def look(self, submission: str) -> Seen:
        if self.away:
            raise AWAY
        return self.seen.get(submission, Seen(DriverState.MISSING))

    def stop(self, submission: str) -> None:
        self.stopped.append(submission)
        if self.stubborn:
            return
        self.seen[submission] = Seen(DriverState.ENDED, None)


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

    def start(self, slots: int = 1) -> Agent:
        connection = Connection(url=self.server.url, token=AGENT_TOKEN)
        return Agent(
            "a",
            api=Api(connection, tries=1, wait=lambda _: None),
            drivers=self.cluster,
            claims=Claims(self.home / "agent" / "claims"),
            connection=connection,
            job_dir=local_job_dir(self.home),
            slots=slots,
            kill=self.killed.append,
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
    order = read_order(environment)
    assert order.claim.id == job.id
    assert order.connection.token == job.token
    assert environment[MARK] == f"{job.id}-1"
    assert environment[JOB_DIR] == str(world.home / "jobs" / job.id)
    assert AGENT_TOKEN not in json.dumps(environment)
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
    world.tick()
    assert world.killed == [f"{job.id}-1"]
    assert world.files == []
    assert job.outcomes == []


@pytest.mark.parametrize(
    ("code", "says"),
    [(None, "was killed"), (1, "exit code 1 before it reported an end; its last line: boom")],
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
    assert world.cluster.stopped == [f"{job.id}-1"]
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
    world.cluster.seen[f"{job.id}-1"] = Seen(DriverState.ENDED, 0)
    world.tick()
    assert world.files == []


def test_a_claim_that_was_never_submitted_is_submitted_after_a_restart(world) -> None:
    world.cluster.away = True
    job = world.server.submit(SPEC)
    world.tick()
    assert world.cluster.started == {}
    world.cluster.away = False
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
    with pytest.raises(UsageError, match="started by the agent"):
        read_order({})
    claim = JobClaim(
        id="job_0000000000000000",
        attempt=1,
        spec=SPEC,
        lease="l",
        lease_seconds=1,
        job_token="t",
    )
    with pytest.raises(UsageError, match="ARGOSY_URL"):
        read_order({CLAIM: claim.model_dump_json()})
