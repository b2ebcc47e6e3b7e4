"""Every part killed in every state of a job: it ends well, with nothing lost but seconds.

Two jobs live through all of it, one kill after the other. The slow tests take every pair of
a victim and a state as a job of its own (about 20 minutes).
"""

from __future__ import annotations

import pytest

from schemas.job import JobState, JobView
from schemas.jobfile import JobSpec
from tests.matrix.conftest import Matrix

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

NOISE = 0.03
EPOCHS = 36

AFTER_TRAINING = (JobState.EXPORTING, JobState.OPTIMIZING, JobState.REGISTERING)
PAIRS = [
    *((victim, JobState.QUEUED) for victim in ("node", "agent", "orchestrator")),
    *(
        (victim, JobState.RUNNING)
        for victim in ("worker", "node", "driver", "agent", "orchestrator")
    ),
    *(
        (victim, state)
        for state in AFTER_TRAINING
        for victim in ("node", "driver", "agent", "orchestrator")
    ),
]


def spec(name: str, **changes: object) -> JobSpec:
    """Digits on one or two workers, for long enough to be killed often."""
    return JobSpec.model_validate(
        {
            "name": name,
            "model": f"{name}-model",
            "task": "workers.recipes.digits:Digits",
            "config": {"width": 2.0, "batch_size": 64},
            "resources": {"workers": "1..2"},
            "stop": {"require_target": False, "patience": 1000, "max_epochs": EPOCHS},
            "max_attempts": 10,
            **changes,
        }
    )


def check(matrix: Matrix, view: JobView, undisturbed: float) -> None:
    """It succeeded, every epoch was measured, and the metric is what it always is."""
    assert view.state is JobState.SUCCEEDED, view
    points = list(matrix.argosy.jobs.metrics(view.id))
    assert [point.epoch for point in points] == list(range(1, EPOCHS + 1))
    assert abs(view.best["accuracy"] - undisturbed) <= NOISE
    versions = matrix.argosy.models.get(view.model or "").versions
    assert list(versions) == [view.version], "registered once"
    began = [line.text for line in matrix.argosy.jobs.logs(view.id) if "going on" in line.text]
    assert all("epoch 0" not in text for text in began)


def reached(matrix: Matrix, job: str, state: JobState) -> JobView:
    """The job when it is in a state; some states last for a moment only."""
    if state is JobState.QUEUED:
        return matrix.look(job)
    if state is JobState.REGISTERING:
        return matrix.creep_to(job, state)
    return matrix.reach(job, state, epoch=5 if state is JobState.RUNNING else 0)


@pytest.fixture(scope="module")
def undisturbed() -> float:
    """The best accuracy of the same job when nobody harms it: in this process, without Ray."""
    import torch

    from workers.task import load_task
    from workers.training.local import train_here

    wanted = spec("undisturbed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = load_task(wanted.entrypoint, wanted.config, wanted.seed)
        history = train_here(task, wanted)[1].history
    finally:
        torch.set_num_threads(threads)
    assert history.epochs == EPOCHS
    return history.best


def test_a_job_outlives_every_kill_while_it_trains(matrix: Matrix, undisturbed: float) -> None:
    job = matrix.argosy.jobs.submit(spec("gauntlet"))
    epoch = 3
    for victim in ("worker", "orchestrator", "agent", "node", "driver"):
        before = matrix.reach(job.id, JobState.RUNNING, epoch=epoch)
        matrix.kill(victim, before)
        after = matrix.look(job.id)
        assert after.epoch >= epoch, "no epoch that was reported is forgotten"
        epoch = after.epoch + 3
    check(matrix, matrix.ended(job.id), undisturbed)


def test_a_job_outlives_kills_before_and_after_its_training(
    matrix: Matrix, undisturbed: float
) -> None:
    job = matrix.argosy.jobs.submit(spec("late"))
    matrix.kill("agent", matrix.look(job.id))
    for victim, state in zip(("driver", "orchestrator", "agent"), AFTER_TRAINING, strict=True):
        matrix.kill(victim, reached(matrix, job.id, state))
    check(matrix, matrix.ended(job.id), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "state"), PAIRS, ids=lambda v: str(v).lower())
def test_one_kill(matrix: Matrix, undisturbed: float, victim: str, state: JobState) -> None:
    job = matrix.argosy.jobs.submit(spec(f"{victim}-{state.value.lower()}"))
    view = reached(matrix, job.id, state)
    matrix.kill(victim, view)
    check(matrix, matrix.ended(job.id), undisturbed)
