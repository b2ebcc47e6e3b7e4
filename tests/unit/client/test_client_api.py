from __future__ import annotations

import socket

import httpx
import pytest
from argosy_fake_platform import NOW, State, job_view, rollout_view

from orchestrator.client import Argosy
from orchestrator.client.errors import (
    AnswerError,
    ArgosyError,
    IllegalTransition,
    Invalid,
    NotFound,
    Unauthenticated,
    UnreachableError,
    WaitTimeoutError,
)
from orchestrator.client.rollouts import is_settled
from schemas.errors import Code, Exit
from schemas.job import JobState, LogLine, MetricPoint
from schemas.jobfile import JobSpec
from schemas.model import ModelView
from schemas.rollout import PauseReason, RolloutSpec, RolloutState
from schemas.telemetry import TelemetrySummary

SPEC = JobSpec.model_validate({"name": "digits", "task": "a.b:C", "stop": {"target": 0.9}})


def test_a_job_is_submitted_and_read_back(argosy: Argosy) -> None:
    job = argosy.jobs.submit(SPEC)
    assert argosy.jobs.get(job.id) == job
    assert job.spec == SPEC


def test_listings_page_by_themselves(argosy: Argosy, fake: State) -> None:
    fake.models = [ModelView(name=f"m{i}", versions=(1,)) for i in range(7)]
    assert [m.name for m in argosy.models.list()] == [f"m{i}" for i in range(7)]
    assert len([s for s in fake.seen if s[1] == "/v1/models"]) == 4


def test_metrics_go_on_after_an_epoch(argosy: Argosy, fake: State) -> None:
    job = argosy.jobs.submit(SPEC)
    fake.metrics[job.id] = [MetricPoint(epoch=i, at=NOW, values={"a": i}) for i in range(1, 6)]
    assert [p.epoch for p in argosy.jobs.metrics(job.id, after_epoch=2)] == [3, 4, 5]


def test_logs_end_where_they_end_now(argosy: Argosy, fake: State) -> None:
    job = argosy.jobs.submit(SPEC)
    fake.logs[job.id] = [LogLine(at=NOW, text=str(i)) for i in range(5)]
    assert [line.text for line in argosy.jobs.logs(job.id)] == ["0", "1", "2", "3", "4"]


def test_wait_returns_the_ended_job(argosy: Argosy, fake: State) -> None:
    first = job_view(JobState.RUNNING)
    ended = first.model_copy(update={"state": JobState.FAILED})
    fake.jobs[first.id] = [first, ended]
    fake.events = []
    assert argosy.jobs.wait(first.id, timeout=10) == ended


def test_wait_gives_up_in_time(argosy: Argosy, fake: State) -> None:
    job = job_view(JobState.RUNNING)
    fake.jobs[job.id] = [job]
    with pytest.raises(WaitTimeoutError) as caught:
        argosy.jobs.wait(job.id, timeout=0.1)
    assert caught.value.exit is Exit.TIMED_OUT


def test_a_rollout_is_drafted_then_started(argosy: Argosy) -> None:
    draft = argosy.rollouts.create(RolloutSpec(model="digits", version=1))
    assert draft.state is RolloutState.DRAFT
    assert argosy.rollouts.start(draft.id).state is RolloutState.RUNNING
    assert argosy.rollouts.abort(draft.id).state is RolloutState.ABORTED


@pytest.mark.parametrize(
    ("state", "reason", "settled"),
    [
        (RolloutState.RUNNING, None, False),
        (RolloutState.PAUSED, PauseReason.OPERATOR, False),
        (RolloutState.PAUSED, PauseReason.VERDICT_FAILED, True),
        (RolloutState.PAUSED, PauseReason.INCONCLUSIVE, True),
        (RolloutState.ROLLING_BACK, None, False),
        (RolloutState.ROLLED_BACK, None, True),
        (RolloutState.SUCCEEDED, None, True),
    ],
)
def test_a_rollout_settles_when_it_goes_no_further_by_itself(
    *, state: RolloutState, reason: PauseReason | None, settled: bool
) -> None:
    assert is_settled(rollout_view(state, pause_reason=reason)) is settled


def test_telemetry_by_device(argosy: Argosy, fake: State) -> None:
    fleet = TelemetrySummary(
        model="m", version=1, windows=1, n=9, errors=0, labelled=0, correct=0, accuracy=None
    )
    one = fleet.model_copy(update={"device": "dev_0000000000000000"})
    fake.summaries = [fleet, one]
    assert list(argosy.telemetry.summary("m", 1)) == [fleet]
    assert list(argosy.telemetry.summary("m", 1, by="device")) == [one]


def test_a_refusal_is_the_error_that_the_server_raised(argosy: Argosy, fake: State) -> None:
    with pytest.raises(NotFound, match="there is no job_x") as caught:
        argosy.jobs.get("job_x")
    assert caught.value.hint == "list what there is"
    done = job_view(JobState.SUCCEEDED)
    fake.jobs[done.id] = [done]
    with pytest.raises(IllegalTransition):
        argosy.jobs.cancel(done.id)


def test_an_id_is_always_one_segment_of_the_path(argosy: Argosy, fake: State) -> None:
    with pytest.raises(NotFound):
        argosy.jobs.get("../tokens?x=1#")
    assert fake.seen[-1][1].startswith("/v1/jobs/")
    for dots in ("", ".", ".."):
        with pytest.raises(Invalid, match="is neither an id nor a name"):
            argosy.jobs.get(dots)


def test_a_wrong_token_is_refused(fake_server: tuple[str, State], fake: State) -> None:
    with Argosy(fake_server[0], "wrong") as client, pytest.raises(Unauthenticated) as caught:
        client.health()
    assert caught.value.exit is Exit.AUTH


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with Argosy(url, "t") as client, pytest.raises(UnreachableError) as caught:
        client.health()
    assert caught.value.detail == f"no platform answers at {url}"
    assert "argosy up" in (caught.value.hint or "")


def answering(response: httpx.Response) -> Argosy:
    transport = httpx.MockTransport(lambda _request: response)
    return Argosy("http://127.0.0.1:1", "t", http=transport)


def test_an_answer_of_another_form_is_one_line() -> None:
    with pytest.raises(AnswerError, match="GET /v1/health is not understood"):
        answering(httpx.Response(200, json={"ok": "perhaps"})).health()


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.Response(500, content=b"{", headers={"content-type": "application/problem+json"}),
        httpx.Response(301, headers={"location": "https://evil.example"}),
    ],
)
def test_what_is_not_a_platform_is_said_so(response: httpx.Response) -> None:
    with pytest.raises(ArgosyError, match="was answered") as caught:
        answering(response).health()
    assert "really an Argosy platform" in (caught.value.hint or "")


def test_a_listing_that_does_not_move_on_ends() -> None:
    page = {"items": [{"name": "a", "versions": []}], "next": "same"}
    with pytest.raises(AnswerError, match="does not move"):
        list(answering(httpx.Response(200, json=page)).models.list())


def test_the_fields_of_a_refusal_reach_the_caller() -> None:
    problem = {
        "title": "invalid",
        "status": 422,
        "code": "invalid",
        "detail": "the job is not valid",
        "errors": [{"field": "stop.target", "message": "must be at most 1"}],
    }
    response = httpx.Response(
        422, json=problem, headers={"content-type": "application/problem+json; charset=utf-8"}
    )
    with pytest.raises(Invalid) as caught:
        answering(response).jobs.submit(SPEC)
    assert caught.value.fields[0].field == "stop.target"


def test_a_fault_of_the_server_names_its_request() -> None:
    problem = {
        "title": "internal", "status": 500, "code": Code.INTERNAL, "detail": "x",
        "request_id": "r9",
    }  # fmt: skip
    response = httpx.Response(
        500, json=problem, headers={"content-type": "application/problem+json"}
    )
    with pytest.raises(ArgosyError) as caught:
        answering(response).health()
    assert "r9" in (caught.value.hint or "")
