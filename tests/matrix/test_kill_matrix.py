"""Every part killed in every state of a job: it ends well, with nothing lost but seconds.

One job lives through a kill of each part, of which some fall into each of its states. The slow
tests kill every part that there is while one job trains, then before and after its training,
and take every pair of a victim and a state as a job of its own (about 20 minutes).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from schemas.job import JobState, JobView
from schemas.jobfile import JobSpec
from tests.matrix.conftest import Matrix

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

NOISE = 0.03
EPOCHS, FEW_EPOCHS = 36, 16

Undisturbed = Callable[[int], float]

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


def spec(name: str, epochs: int = EPOCHS) -> JobSpec:
    """Digits on one or two workers, for long enough to be killed often."""
    return JobSpec.model_validate(
        {
            "name": name,
            "model": f"{name}-model",
            "task": "workers.recipes.digits:Digits",
            "config": {"width": 2.0, "batch_size": 64},
            "resources": {"workers": "1..2"},
            "stop": {"require_target": False, "patience": 1000, "max_epochs": epochs},
            "max_attempts": 10,
        }
    )


def check(matrix: Matrix, job: str, undisturbed: Undisturbed, epochs: int = EPOCHS) -> None:
    """It succeeded, every epoch was measured, and the metric is what it always is."""
    view = matrix.ended(job)
    assert view.state is JobState.SUCCEEDED, view
    points = list(matrix.argosy.jobs.metrics(view.id))
    assert [point.epoch for point in points] == list(range(1, epochs + 1))
    assert abs(view.best["accuracy"] - undisturbed(epochs)) <= NOISE
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
def undisturbed() -> Undisturbed:
    """The best accuracy of the same job when nobody harms it: in this process, without Ray."""
    import torch

    from workers.task import load_task
    from workers.training.local import train_here

    @functools.cache
    def best(epochs: int) -> float:
        wanted = spec("undisturbed", epochs)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            task = load_task(wanted.entrypoint, wanted.config, wanted.seed)
            history = train_here(task, wanted)[1].history
        finally:
            torch.set_num_threads(threads)
        assert history.epochs == epochs
        return history.best

    return best


def kill_while_training(matrix: Matrix, job: str, *victims: str) -> None:
    epoch = 3
    for victim in victims:
        before = matrix.reach(job, JobState.RUNNING, epoch=epoch)
        matrix.kill(victim, before)
        after = matrix.look(job)
        assert after.epoch >= epoch, "no epoch that was reported is forgotten"
        epoch = after.epoch + 3


def kill_after_training(matrix: Matrix, job: str, *victims: str) -> None:
    for victim, state in zip(victims, AFTER_TRAINING, strict=True):
        matrix.kill(victim, reached(matrix, job, state))


def test_a_job_outlives_a_kill_of_each_part(matrix: Matrix, undisturbed: Undisturbed) -> None:
    job = matrix.argosy.jobs.submit(spec("gauntlet", FEW_EPOCHS)).id
    kill_while_training(matrix, job, "worker", "node")
    kill_after_training(matrix, job, "driver", "agent", "orchestrator")
    check(matrix, job, undisturbed, FEW_EPOCHS)


@pytest.mark.slow
def test_a_job_outlives_every_kill_while_it_trains(
    matrix: Matrix, undisturbed: Undisturbed
) -> None:
    job = matrix.argosy.jobs.submit(spec("training")).id
    kill_while_training(matrix, job, "worker", "orchestrator", "agent", "node", "driver")
    check(matrix, job, undisturbed)


@pytest.mark.slow
def test_a_job_outlives_kills_before_and_after_its_training(
    matrix: Matrix, undisturbed: Undisturbed
) -> None:
    job = matrix.argosy.jobs.submit(spec("late")).id
    matrix.kill("agent", matrix.look(job))
    kill_after_training(matrix, job, "driver", "agent", "orchestrator")
    check(matrix, job, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "state"), PAIRS, ids=lambda v: str(v).lower())
def test_one_kill(matrix: Matrix, undisturbed: Undisturbed, victim: str, state: JobState) -> None:
    job = matrix.argosy.jobs.submit(spec(f"{victim}-{state.value.lower()}")).id
    matrix.kill(victim, reached(matrix, job, state))
    check(matrix, job, undisturbed)
