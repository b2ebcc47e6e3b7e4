from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from argosy_fake_platform import NOW, State, job_view

from orchestrator.client import Argosy
from orchestrator.client.events import Bell
from orchestrator.errors import Invalid, NotFound
from schemas.api import Event
from schemas.dataset import Baseline, DatasetProfile
from schemas.job import AgentView, JobState, LogLine, MetricPoint
from schemas.jobfile import JobSpec

SPEC = JobSpec.model_validate({"name": "mine", "task": "task:T", "stop": {"target": 0.9}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text("class T: ...\n")
    return tmp_path


def test_a_folder_is_uploaded_before_its_job_is_queued(
    argosy: Argosy, fake: State, folder: Path
) -> None:
    told = []
    job = argosy.jobs.submit(SPEC, folder, told=told.append)
    assert job.spec.code is not None
    stored = fake.artifacts[job.spec.code.sha256]
    assert hashlib.sha256(stored).hexdigest() == job.spec.code.sha256
    assert [packed.names for packed in told] == [("task.py",)]
    assert [method for method, _, _ in fake.seen] == ["PUT", "POST"]
    again = argosy.jobs.submit(SPEC, str(folder))
    assert again.spec.code == job.spec.code


def test_what_must_not_travel_is_refused_before_anything_is_sent(
    argosy: Argosy, fake: State, folder: Path
) -> None:
    (folder / ".env").touch()
    with pytest.raises(Invalid):
        argosy.jobs.submit(SPEC, folder)
    assert fake.seen == []


def test_jobs_are_listed_by_state_project_and_name(argosy: Argosy, fake: State) -> None:
    other = SPEC.model_copy(update={"project": "vision", "name": "other"})
    views = [
        job_view(JobState.RUNNING, spec=SPEC),
        job_view(JobState.FAILED, spec=SPEC),
        job_view(JobState.RUNNING, spec=other),
    ]
    fake.jobs = {view.id: [view] for view in views}
    running = argosy.jobs.list([JobState.RUNNING])
    assert [v.id for v in running] == [views[0].id, views[2].id]
    both = argosy.jobs.list([JobState.RUNNING, JobState.FAILED])
    assert len(list(both)) == 3
    assert [v.id for v in argosy.jobs.list(project="vision")] == [views[2].id]
    assert [v.id for v in argosy.jobs.list(name="mine")] == [views[0].id, views[1].id]


def test_metrics_of_one_trial_or_thinned(argosy: Argosy, fake: State) -> None:
    job = argosy.jobs.submit(SPEC)
    fake.metrics[job.id] = [
        MetricPoint(epoch=e, trial=t, at=NOW, values={"a": e}) for e in range(1, 6) for t in (1, 2)
    ]
    assert [p.epoch for p in argosy.jobs.metrics(job.id, trial=2)] == [1, 2, 3, 4, 5]
    assert len(list(argosy.jobs.metrics(job.id, points=100))) == 10
    assert fake.seen[-1][2]["points"] == "100"


def test_logs_are_searched_by_the_platform(argosy: Argosy, fake: State) -> None:
    job = argosy.jobs.submit(SPEC)
    fake.logs[job.id] = [
        LogLine(at=NOW, text=f"{word} {i}", level=level)
        for i in range(5)
        for word, level in (("loss", "info"), ("oops", "error"))
    ]
    texts = [line.text for line in argosy.jobs.logs(job.id, search="loss")]
    assert texts == [f"loss {i}" for i in range(5)]
    assert len(list(argosy.jobs.logs(job.id, level="warning"))) == 5
    page = argosy.jobs.log_page(job.id, level="error", tail=2)
    assert [line.text for line in page.items] == ["oops 3", "oops 4"]
    assert argosy.jobs.log_page(job.id, page.next).items == ()


def test_the_profile_is_there_once_it_was_made(argosy: Argosy, fake: State) -> None:
    job = argosy.jobs.submit(SPEC)
    with pytest.raises(NotFound):
        argosy.jobs.profile(job.id)
    made = DatasetProfile(sha256="0" * 64, splits=(), baseline=Baseline(n=0))
    fake.profiles[job.id] = made
    assert argosy.jobs.profile(job.id) == made


def test_agents_are_listed(argosy: Argosy, fake: State) -> None:
    fake.agents = [AgentView(name=f"a{i}", seen_at=NOW) for i in range(3)]
    assert [agent.name for agent in argosy.agents.list()] == ["a0", "a1", "a2"]


def test_live_figures_wake_a_follower(argosy: Argosy, fake: State) -> None:
    with Bell(argosy._transport, "job_x") as bell:
        fake.events = [Event(id=1, at=NOW, kind="live", subject="job_x", data={"done": 3})]
        bell.wait(10)
        assert bell._thread.is_alive(), "an event of this kind is understood"
