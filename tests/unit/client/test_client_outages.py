"""What a client does when an answer is lost, or the platform is away for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from argosy_fake_platform import NOW, State, job_view

from orchestrator.client import Argosy, jobs
from orchestrator.client.errors import InterruptedAnswerError, UnreachableError
from schemas.job import JobState, LogLine
from schemas.jobfile import JobSpec

SPEC = JobSpec.model_validate({"name": "mine", "task": "task:T", "stop": {"target": 0.9}})


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "RETRY_PAUSES", (0.0, 0.0))


def test_a_submission_whose_answer_is_lost_is_one_job(
    argosy: Argosy, fake: State, tmp_path: Path
) -> None:
    (tmp_path / "task.py").write_text("class T: ...\n")
    argosy.jobs.submit(SPEC)
    fake.lost_answers = 1
    made = argosy.jobs.submit(SPEC.model_copy(update={"seed": 1}))
    assert set(fake.jobs) == {made.id, *fake.jobs}
    assert len(fake.jobs) == 2
    posts = [one for one in fake.seen if one[0] == "POST"]
    assert len(posts) == 3


def test_a_submission_is_not_sent_for_ever(argosy: Argosy, fake: State) -> None:
    fake.lost_answers = 10
    with pytest.raises(InterruptedAnswerError):
        argosy.jobs.submit(SPEC)
    assert (len(fake.seen), len(fake.jobs)) == (3, 1)


def test_without_a_platform_a_submission_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.time, "sleep", lambda _seconds: pytest.fail("it waited"))
    with Argosy("http://127.0.0.1:9", "x") as nobody, pytest.raises(UnreachableError):
        nobody.jobs.submit(SPEC)


def test_what_is_fetched_beside_is_fetched_again_after_an_outage(
    argosy: Argosy, fake: State
) -> None:
    running = job_view(JobState.RUNNING)
    ended = running.model_copy(update={"state": JobState.SUCCEEDED})
    fake.jobs[running.id] = [running, ended]
    fake.logs[running.id] = [LogLine(at=NOW, text=str(n)) for n in range(3)]
    fake.outage_after = 3  # the look that sees the end, between the job and its log
    seen: list[list[str]] = []

    def beside(_view: object) -> None:
        seen.append([line.text for line in argosy.jobs.log_page(running.id).items])

    looks = list(argosy.jobs.follow(running.id, beside=beside))
    assert [look.outage is not None for look in looks] == [False, True, False]
    assert len(seen) == 2
    assert looks[-1].value == ended
