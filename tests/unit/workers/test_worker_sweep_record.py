from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from schemas.job import JobCause, Trial
from schemas.jobfile import JobSpec
from workers.distributed.train import Fitted
from workers.errors import JobFailed
from workers.sweep import record as records
from workers.sweep.keeper import Keeper
from workers.sweep.plan import plan
from workers.sweep.record import storage_of
from workers.sweep.reports import done_report as done
from workers.sweep.reports import failed_report
from workers.sweep.search import Best, search

JOB = JobSpec.model_validate(
    {
        "name": "digits",
        "task": "workers.recipes.digits:Digits",
        "stop": {"target": 0.9, "max_epochs": 8},
        "sweep": {
            "space": {"config.lr": [0.1, 0.2, 0.3]},
            "method": "asha", "trials": 3, "grace_epochs": 2, "reduction": 2,
        },
    }
)  # fmt: skip


class Told(list[tuple[Trial, ...]]):
    def __call__(self, trials: Sequence[Trial]) -> None:
        self.append(tuple(trials))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def keeper(tmp_path: Path, told: Told) -> Keeper:
    found = Keeper(records.new_record(plan(JOB)), JOB, str(tmp_path), told)
    found.begin()
    return found


def epoch(number: int, accuracy: float) -> dict[str, Any]:
    return {"epoch": float(number), "accuracy": accuracy, "loss": 1.0}


def fail(cause: str, detail: str) -> dict[str, Any]:
    return failed_report(JobFailed(JobCause(cause), detail))


def stored(tmp_path: Path) -> records.Record:
    found = records.load(str(tmp_path))
    assert found is not None
    return found


def test_the_plan_is_written_before_anything_runs(keeper, told, tmp_path) -> None:
    assert stored(tmp_path) == keeper.record
    assert [t.number for t in told[-1]] == [1, 2, 3]
    assert {t.state for t in told[-1]} == {"waiting"}


def test_a_trial_runs_measures_and_ends(keeper, told, tmp_path) -> None:
    keeper.started(2)
    keeper.reported(2, epoch(1, 0.5))
    keeper.reported(2, epoch(2, 0.4))
    trial = told[-1][1]
    assert (trial.state, trial.epochs, trial.best) == ("running", 2, 0.5)
    assert keeper.record.entry(2).rungs == {2: 0.4}, "what ASHA compared, not the best"
    keeper.reported(2, done(3, 0.6))
    keeper.left(2)
    trial = told[-1][1]
    assert (trial.state, trial.epochs, trial.best, trial.detail) == ("done", 3, 0.6, None)
    assert stored(tmp_path) == keeper.record


def test_a_trial_that_the_scheduler_ends_is_stopped(keeper, told) -> None:
    keeper.started(1)
    keeper.reported(1, epoch(2, 0.1))
    keeper.left(1)
    assert told[-1][0].state == "stopped"
    assert told[-1][0].detail == "others did better by epoch 2"
    seen = len(told)
    keeper.reported(1, epoch(3, 0.99))
    assert len(told) == seen, "what comes late changes nothing"


def test_a_failed_trial_keeps_its_cause_and_does_not_become_stopped(keeper, told) -> None:
    keeper.started(1)
    keeper.reported(1, fail("diverged", "the loss is NaN"))
    keeper.left(1)
    assert (told[-1][0].state, told[-1][0].detail) == ("failed", "the loss is NaN")
    assert keeper.record.entry(1).cause is JobCause.DIVERGED
    keeper.broke(2, "x" * 9000)
    assert len(told[-1][1].detail or "") == records.MAX_DETAIL


def test_every_epoch_is_told_but_only_what_matters_is_written(keeper, told, monkeypatch) -> None:
    written = []
    monkeypatch.setattr(records, "save", lambda _storage, record: written.append(record))
    keeper.reported(1, epoch(3, 0.5))
    before = len(told)
    keeper.reported(1, epoch(4, 0.2))  # a rung
    keeper.reported(1, epoch(5, 0.1))  # neither a rung nor better
    keeper.reported(1, epoch(6, 0.7))  # better
    assert len(told) == before + 3
    assert [r.entry(1).trial.epochs for r in written] == [3, 4, 6]


def test_a_value_that_is_no_number_is_left_out(keeper, told) -> None:
    before = len(told)
    keeper.reported(1, epoch(1, float("nan")))
    assert len(told) == before


def test_the_target_ends_the_rest(keeper, told) -> None:
    keeper.started(2)
    keeper.reported(2, epoch(1, 0.95))
    assert records.at_target(keeper.record, 0.9) is None, "it must end by itself first"
    keeper.reported(2, done(1, 0.95))
    keeper.close()
    assert [t.state for t in told[-1]] == ["stopped", "done", "stopped"]
    assert told[-1][0].detail == "trial 2 reached the target"


def test_a_search_that_ends_too_soon_is_no_success(keeper) -> None:
    keeper.reported(1, done(8, 0.5))
    with pytest.raises(JobFailed) as caught:
        keeper.close()
    assert caught.value.cause is JobCause.DRIVER_DIED, "another attempt goes on"


def test_another_attempt_runs_only_what_had_not_ended(keeper) -> None:
    keeper.reported(1, done(8, 0.5))
    keeper.reported(2, epoch(2, 0.3))
    found = records.reopened(keeper.record)
    assert found.open() == (2, 3)
    assert [t.state for t in found.trials] == ["done", "waiting", "waiting"]
    assert found.entry(2).rungs == {2: 0.3}
    assert found.entry(2).trial.best == 0.3


def test_what_the_machinery_failed_is_tried_again_by_another_attempt(keeper) -> None:
    keeper.broke(1, "the actor died")
    keeper.reported(2, fail("diverged", "NaN"))
    assert keeper.record.open() == (3,)
    found = records.reopened(keeper.record)
    assert found.open() == (1, 3)
    assert (found.entry(1).cause, found.trials[0].detail) == (None, None)


def test_the_best_wins_and_at_a_tie_the_one_of_fewer_epochs(keeper) -> None:
    keeper.reported(1, done(8, 0.5))
    keeper.reported(2, done(4, 0.5))
    keeper.reported(3, done(8, 0.4))
    assert [t.number for t in records.ranking(keeper.record)] == [2, 1, 3]


def test_a_failed_trial_wins_nothing(keeper) -> None:
    keeper.reported(1, epoch(1, 0.99))
    keeper.reported(1, fail("diverged", "NaN"))
    keeper.reported(2, done(4, 0.5))
    assert [t.number for t in records.ranking(keeper.record)] == [2]


def test_a_damaged_record_is_begun_anew(tmp_path) -> None:
    (tmp_path / records.FILE).write_text('{"entries": [')
    assert records.load(str(tmp_path)) is None
    assert records.load(str(tmp_path / "nowhere")) is None


def test_a_record_is_kept_behind_a_url_too(tmp_path) -> None:
    record = records.new_record([{"seed": 1}])
    records.save(tmp_path.as_uri(), record)
    assert records.load(tmp_path.as_uri()) == record == records.load(str(tmp_path))
    assert records.load((tmp_path / "nowhere").as_uri()) is None


def _ended(tmp_path: Path, *reports: dict[str, Any]) -> None:
    keeper = Keeper(records.new_record(plan(JOB)), JOB, str(tmp_path), Told())
    for number, report in enumerate(reports, start=1):
        keeper.reported(number, report)


def _search(tmp_path: Path, told: Told, missing: tuple[str, ...] = ()) -> Best:
    def collect(spec: JobSpec, storage: str) -> Fitted:
        if storage in missing:
            raise JobFailed(JobCause.INTERNAL, "no checkpoint")
        return Fitted(storage.encode(), 1, float(spec.config["lr"]))

    return search(JOB, str(tmp_path), "nobody", told, fit=None, collect=collect)


def test_an_attempt_after_the_last_trial_only_chooses(tmp_path, told) -> None:
    lr = [p["config.lr"] for p in plan(JOB)]
    _ended(tmp_path, done(8, 0.5), done(8, 0.7), fail("diverged", "NaN"))
    best = _search(tmp_path, told)
    assert best.parameters == {"config.lr": lr[1]}
    assert best.spec.config == {"lr": lr[1]}
    assert best.spec.sweep is None
    assert best.fitted.checkpoint == storage_of(str(tmp_path), 2).encode()
    assert [t.state for t in best.trials] == ["done", "done", "failed"]


def test_a_winner_without_a_checkpoint_is_passed_over(tmp_path, told) -> None:
    _ended(tmp_path, done(8, 0.5), done(8, 0.7), done(8, 0.2))
    best = _search(tmp_path, told, missing=(storage_of(str(tmp_path), 2),))
    assert best.fitted.checkpoint == storage_of(str(tmp_path), 1).encode()


def test_when_all_failed_the_first_says_why(tmp_path, told) -> None:
    _ended(
        tmp_path,
        fail("out_of_memory", "lower the batch size"),
        fail("diverged", "NaN"),
        fail("diverged", "NaN"),
    )
    with pytest.raises(JobFailed, match="trial 1: lower the batch size") as caught:
        _search(tmp_path, told)
    assert caught.value.cause is JobCause.OUT_OF_MEMORY


def test_a_target_reached_before_the_driver_died_needs_no_more_trials(tmp_path, told) -> None:
    _ended(tmp_path, done(8, 0.95))
    best = _search(tmp_path, told)
    assert [t.state for t in best.trials] == ["done", "stopped", "stopped"]


def test_asha_hears_what_ended_trials_measured_before() -> None:
    from workers.sweep.tune import scheduler_of

    class Now:
        trial_id = "now"

    record = records.new_record(plan(JOB))
    fresh = scheduler_of(JOB, record)
    fresh.on_trial_add(None, Now())
    assert fresh.on_trial_result(None, Now(), epoch(2, 0.1)) == "CONTINUE", "nobody to compare"

    record = records.measured(record, 1, 2, 0.8, (2, 4, 8))
    record = records.finished(record, 1, 8, 0.9)
    again = scheduler_of(JOB, record)
    again.on_trial_add(None, Now())
    assert again.on_trial_result(None, Now(), epoch(2, 0.1)) == "STOP"
    grid = JOB.model_copy(update={"sweep": JOB.sweep.model_copy(update={"method": "grid"})})
    assert scheduler_of(grid, record) is None


def test_the_stopper_waits_for_a_trial_to_end_by_itself() -> None:
    from workers.sweep.tune import TargetReached

    stopper = TargetReached(0.9)
    assert not stopper("a", epoch(1, 0.95))
    assert not stopper.stop_all()
    assert not stopper("b", done(3, 0.8))
    assert not stopper.stop_all()
    assert not stopper("a", done(3, 0.95))
    assert stopper.stop_all()
    assert not stopper("b", done(3, 0.1))
    assert stopper.stop_all()
    without = TargetReached(None)
    assert not without("a", done(1, 1.0))
    assert not without.stop_all()


def test_a_trial_that_died_gives_back_what_its_workers_held() -> None:
    from workers.sweep.reports import GROUP
    from workers.sweep.tune import Watch

    class Tuned:
        def __init__(self) -> None:
            self.config = {"trial": 2}

        def get_error(self) -> str:
            return "Traceback\nworkers.errors.JobFailed: the actor died"

    freed: list[str] = []
    down: list[int] = []
    keeper = Keeper(records.new_record(plan(JOB)), JOB, "/nowhere", Told())
    watch = Watch(keeper, down.append, freed.append)
    keeper._change = lambda record: setattr(keeper, "record", record)  # nothing is written
    watch.on_trial_start(1, [], Tuned())
    watch.on_trial_result(1, [], Tuned(), {GROUP: "ab"})
    assert freed == []
    watch.on_trial_start(2, [], Tuned())
    assert freed == ["ab"]
    watch.on_trial_result(2, [], Tuned(), {GROUP: "cd"})
    watch.on_trial_error(3, [], Tuned())
    assert freed == ["ab", "cd"]
    assert down == [2]
    assert keeper.record.trials[1].detail == "the actor died"
    assert keeper.record.entry(2).cause is JobCause.DRIVER_DIED
