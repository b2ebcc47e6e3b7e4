from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from schemas.errors import Code, Exit
from schemas.job import AgentOutcome, JobProgress, JobState
from schemas.jobfile import JobSpec
from tests.unit.workers.fake_api import AGENT_TOKEN, FakeApi
from workers.client import Api, backoff
from workers.driver.reporter import Final, Reporter, next_seq
from workers.errors import ApiError, ApiUnavailableError, LeaseLostError, RefusedError, UsageError
from workers.settings import Connection, load_connection

SPEC = JobSpec(name="x", task="a:B", stop={"target": 0.9})


@pytest.fixture
def server():
    api = FakeApi()
    yield api
    api.close()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def agent(server, waits):
    with Api(Connection(url=server.url, token=AGENT_TOKEN), tries=4, wait=waits.append) as api:
        yield api


def driver(server, job, waits) -> Api:
    return Api(Connection(url=server.url, token=job.token), tries=4, wait=waits.append)


def test_no_job_is_none_and_a_job_is_a_claim(server, agent) -> None:
    assert agent.claim("a") is None
    job = server.submit(SPEC)
    claim = agent.claim("a")
    assert claim is not None
    assert (claim.id, claim.attempt, claim.spec) == (job.id, 1, SPEC)
    assert agent.heartbeat(claim).cancel is False


def test_server_errors_are_tried_again_with_growing_pauses(server, agent, waits, tmp_path) -> None:
    job = server.submit(SPEC)
    agent.claim("a")
    path = tmp_path / "f"
    path.write_bytes(b"model")
    sha256 = hashlib.sha256(b"model").hexdigest()
    server.failures = [503, 500, 429]
    stored = driver(server, job, waits).upload(sha256, path)
    assert stored.created
    assert server.artifacts[sha256] == b"model"
    assert len(waits) == 3
    assert waits[2] > waits[0]


def test_after_all_tries_it_is_unavailable_in_one_line(server, agent) -> None:
    job = server.submit(SPEC)
    claim = agent.claim("a")
    server.failures = [502] * 4
    with pytest.raises(ApiUnavailableError, match=r"answered 502 \(4 tries\)") as caught:
        agent.outcome(job.id, AgentOutcome(attempt=1, lease=claim.lease, cancelled=False))
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_unavailable(server, waits) -> None:
    url = server.url
    server.close()
    api = Api(Connection(url=url, token="t"), tries=2, wait=waits.append)
    with pytest.raises(ApiUnavailableError, match="check that the server runs"):
        api.outcome("job_0000000000000000", AgentOutcome(attempt=1, lease="l", cancelled=True))
    assert len(waits) == 1


def test_a_claim_is_not_repeated(server, agent) -> None:
    server.failures = [500]
    with pytest.raises(ApiUnavailableError):
        agent.claim("a")
    assert server.requests == ["POST /v1/worker/claim"]


def test_problems_become_errors_of_the_tree(server, agent, waits, tmp_path) -> None:
    job = server.submit(SPEC)
    claim = agent.claim("a")
    late = claim.model_copy(update={"attempt": 7})
    with pytest.raises(LeaseLostError, match="attempt 7 has no lease"):
        agent.heartbeat(late)
    stranger = Api(Connection(url=server.url, token="nobody"), wait=waits.append)
    with pytest.raises(RefusedError) as caught:
        stranger.claim("a")
    assert caught.value.code is Code.UNAUTHENTICATED
    assert caught.value.exit_code == Exit.AUTH
    path = tmp_path / "f"
    path.write_bytes(b"model")
    with pytest.raises(RefusedError) as caught:
        driver(server, job, waits).upload("0" * 64, path)
    assert caught.value.code is Code.DIGEST_MISMATCH
    assert waits == [], "what is refused is not tried again"


def test_an_answer_of_another_kind_is_named(server, agent, monkeypatch) -> None:
    from schemas.api import Stored

    server.submit(SPEC)
    monkeypatch.setattr(
        server, "_claim", lambda *_: (200, Stored(sha256="x", size=1, created=True))
    )
    with pytest.raises(ApiError, match="not a JobClaim"):
        agent.claim("a")


def test_a_bad_ca_file_is_a_usage_error(tmp_path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")
    with pytest.raises(UsageError, match=r"ca\.pem"):
        Api(Connection(url="https://localhost", token="t", ca=str(path)))


def test_backoff_grows_and_is_capped() -> None:
    pauses = [backoff(i, 1.0) for i in range(1, 12)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 5.0
    assert backoff(3, 0.0) == backoff(3, 1.0) / 2


def test_the_connection_comes_from_the_environment_or_the_home(tmp_path: Path) -> None:
    env = {"ARGOSY_URL": "http://x", "ARGOSY_TOKEN": "t", "ARGOSY_CA": "/ca"}
    assert load_connection(tmp_path, env) == Connection(url="http://x", token="t", ca="/ca")
    with pytest.raises(UsageError, match="cannot read"):
        load_connection(tmp_path, {})
    (tmp_path / "worker.json").write_text('{"url": "http://y"}')
    with pytest.raises(UsageError, match="token: Field required"):
        load_connection(tmp_path, {})
    (tmp_path / "worker.json").write_text('{"url": "http://y", "token": "t", "ca": null}')
    assert load_connection(tmp_path, {}).url == "http://y"


def test_seq_grows_even_when_the_clock_goes_back() -> None:
    assert next_seq(0, 1000) == 1000
    assert next_seq(1000, 900) == 1001


def reporter_of(server, job, waits, stopped) -> Reporter:
    api = driver(server, job, waits)
    found = Reporter(api, job.id, job.attempt, 0.3, stopped.append, wait=waits.append)
    found.start()
    return found


def test_reports_arrive_in_order_and_the_last_word_last(server, agent, waits) -> None:
    job = server.submit(SPEC)
    agent.claim("a")
    stopped: list[str] = []
    reporter = reporter_of(server, job, waits, stopped)
    for i in range(2500):
        reporter.log("info", f"line {i}")
    reporter.enter(JobState.EXPORTING)
    reporter.enter(JobState.OPTIMIZING)
    server.failures = [503, 503]
    assert reporter.finish(Final(JobState.FAILED, detail="x"))
    assert [line.text for line in job.logs] == [f"line {i}" for i in range(2500)]
    assert [s for _, s in job.states] == [
        JobState.EXPORTING,
        JobState.OPTIMIZING,
        JobState.FAILED,
    ]
    assert job.seqs == sorted(set(job.seqs))
    assert stopped == []


def test_a_second_driver_of_an_attempt_is_heard(server, agent, waits) -> None:
    job = server.submit(SPEC)
    agent.claim("a")
    for text in ("first", "second"):
        reporter = reporter_of(server, job, waits, [])
        reporter.log("info", text)
        reporter.enter(JobState.EXPORTING)
        assert server.wait(lambda text=text: any(x.text == text for x in job.logs), 10)


def test_a_silent_driver_keeps_its_lease_and_learns_of_a_cancel(server, agent, waits) -> None:
    job = server.submit(SPEC)
    agent.claim("a")
    stopped, heard = [], threading.Event()
    reporter = Reporter(
        driver(server, job, waits),
        job.id,
        1,
        0.3,
        lambda reason: (stopped.append(reason), heard.set()),
    )
    server.lease_seconds = 0.3
    reporter.start()
    assert server.wait(lambda: len(job.seqs) >= 2, 10), "it speaks without having news"
    job.cancel = True
    assert heard.wait(10)
    assert stopped == ["cancelled by an operator"]
    assert not reporter.finish(Final(JobState.SUCCEEDED)), "no last word after a cancel"
    assert job.states == []


def test_a_driver_whose_lease_is_lost_stops_and_says_nothing_more(server, agent, waits) -> None:
    job = server.submit(SPEC)
    agent.claim("a")
    stopped: list[str] = []
    reporter = reporter_of(server, job, waits, stopped)
    job.state = JobState.QUEUED
    assert not reporter.finish(Final(JobState.SUCCEEDED))
    assert len(stopped) == 1
    assert "has no lease" in stopped[0]


def test_a_report_is_sent_whole_after_an_outage(server, agent, waits) -> None:
    job = server.submit(SPEC)
    agent.claim("a")
    server.failures = [500] * 9  # more than one call's tries
    reporter = reporter_of(server, job, waits, [])
    reporter.log("info", "kept")
    assert reporter.finish(Final(JobState.FAILED, detail="x"))
    assert [line.text for line in job.logs] == ["kept"]
    assert JobProgress(attempt=1, seq=job.seqs[-1]).seq == max(job.seqs)
