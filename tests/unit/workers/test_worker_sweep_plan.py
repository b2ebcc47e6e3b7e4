from __future__ import annotations

from typing import Any

import pytest

from schemas.jobfile import JobSpec
from schemas.sweep import Span
from schemas.workers import WorkerRange
from workers.errors import UsageError
from workers.sweep.plan import apply, at_once, draw_span, milestones, plan


def job(sweep: dict[str, Any], **more: Any) -> JobSpec:
    base: dict[str, Any] = {
        "name": "digits",
        "task": "workers.recipes.digits:Digits",
        "config": {"lr": 0.5, "net": {"width": 1}},
        "stop": {"target": 0.9, "max_epochs": 9},
        "sweep": sweep,
    }
    return JobSpec.model_validate({**base, **more})


def test_a_grid_is_every_combination_and_its_last_key_varies_fastest() -> None:
    found = plan(job({"config.lr": [0.1, 0.01], "seed": [1, 2]}))
    assert found == (
        {"config.lr": 0.1, "seed": 1},
        {"config.lr": 0.1, "seed": 2},
        {"config.lr": 0.01, "seed": 1},
        {"config.lr": 0.01, "seed": 2},
    )


def test_a_value_written_twice_is_tried_once_but_1_and_true_are_two() -> None:
    assert plan(job({"config.a": [1, 1, True, "1"]})) == (
        {"config.a": 1}, {"config.a": True}, {"config.a": "1"},
    )  # fmt: skip


def test_random_trials_come_from_the_seed_alone() -> None:
    sweep = {
        "space": {"config.lr": {"min": 1e-4, "max": 1, "log": True}, "config.b": [1, 2]},
        "method": "random",
        "trials": 8,
    }
    first = plan(job(sweep, seed=3))
    assert len(first) == 8
    assert first == plan(job(sweep, seed=3))
    assert first != plan(job(sweep, seed=4))
    longer = plan(job({**sweep, "trials": 12}, seed=3))
    assert longer[:8] == first, "more trials leave the numbers of the others"


def test_a_small_space_has_fewer_trials_than_asked_for() -> None:
    sweep = {"space": {"config.b": [1, 2, 3]}, "method": "random", "trials": 50}
    assert sorted(p["config.b"] for p in plan(job(sweep))) == [1, 2, 3]


def test_parameters_go_to_their_places_and_the_sweep_goes() -> None:
    spec = job({"config.lr": [0.1]})
    found = apply(
        spec,
        {"config.lr": 0.1, "config.net.width": 2, "config.new.deep": "x", "seed": 5,
         "training.schedule.kind": "cosine", "training.accumulate": 4},
    )  # fmt: skip
    assert found.config == {"lr": 0.1, "net": {"width": 2}, "new": {"deep": "x"}}
    assert (found.seed, found.training.schedule.kind, found.training.accumulate) == (5, "cosine", 4)
    assert found.sweep is None
    assert spec.config == {"lr": 0.5, "net": {"width": 1}}, "the job itself stays as it was"
    assert found.model_copy(
        update={"sweep": spec.sweep, "config": spec.config, "seed": 0, "training": spec.training}
    ) == spec  # fmt: skip


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"config.lr": 1, "training.accumulate": 0}, r"training\.accumulate: 0 is refused"),
        ({"training.schedule.kind": "wavy"}, r"training\.schedule\.kind: 'wavy' is refused"),
        ({"training.schedule": "cosine"}, r"training\.schedule: 'cosine' is refused"),
        ({"training.speed": 1}, r"training\.speed: 1 is refused"),
        ({"training.pace.kind": 1}, r"training\.pace\.kind: training\.pace holds no settings"),
        ({"config.lr.deep": 1}, r"config\.lr\.deep: config\.lr holds no settings"),
        ({"seed": -1}, r"seed: -1 is refused"),
        ({"seed": None}, r"seed: None is refused"),
    ],
)
def test_what_does_not_fit_is_named_by_its_key(parameters, says) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        apply(job({"config.lr": [0.1]}), parameters)
    assert "\n" not in str(caught.value)


def test_the_whole_plan_is_checked_before_anything_runs() -> None:
    with pytest.raises(UsageError, match=r"training\.accumulate: 0 "):
        plan(job({"training.accumulate": [1, 2, 0]}))


def test_a_grace_beyond_the_last_epoch_is_refused() -> None:
    sweep = {"space": {"seed": [1, 2]}, "method": "asha", "trials": 2, "grace_epochs": 10}
    with pytest.raises(UsageError, match="grace_epochs is 10"):
        plan(job(sweep))


def test_a_span_without_a_whole_number_is_refused() -> None:
    span = {"min": 0.2, "max": 0.8, "whole": True}
    with pytest.raises(UsageError, match=r"config\.n: no whole number lies in 0\.2\.\.0\.8"):
        plan(job({"space": {"config.n": span}, "method": "random", "trials": 2}))


def test_a_job_without_a_sweep_has_no_plan() -> None:
    with pytest.raises(UsageError, match="no sweep"):
        plan(job({"seed": [1]}).model_copy(update={"sweep": None}))


def test_a_logarithmic_span_gives_each_decade_its_share() -> None:
    span = Span(min=1e-4, max=1.0, log=True)
    drawn = [draw_span(span, i / 400) for i in range(400)]
    for decade in (1e-4, 1e-3, 1e-2, 1e-1):
        assert 98 <= sum(decade <= value < 10 * decade for value in drawn) <= 102
    assert sum(draw_span(Span(min=0, max=4), i / 400) < 1 for i in range(400)) == 100


def test_both_ends_of_whole_numbers_get_their_share() -> None:
    even = [draw_span(Span(min=1, max=4, whole=True), i / 400) for i in range(400)]
    assert {n: even.count(n) for n in (1, 2, 3, 4)} == {1: 100, 2: 100, 3: 100, 4: 100}
    log = [draw_span(Span(min=1, max=4, whole=True, log=True), i / 400) for i in range(400)]
    assert set(log) == {1, 2, 3, 4}
    assert log.count(1) > log.count(2) > log.count(3) > log.count(4)


def test_asha_compares_at_powers_of_its_reduction() -> None:
    sweep = {"space": {"seed": [1, 2]}, "method": "asha", "trials": 2}
    assert milestones(job({**sweep, "grace_epochs": 1, "reduction": 3})) == (1, 3, 9)
    assert milestones(job({**sweep, "grace_epochs": 2, "reduction": 2})) == (2, 4, 8)
    assert milestones(job({"seed": [1, 2]})) == ()


@pytest.mark.parametrize(
    ("workers", "parallel", "cpus", "trials", "each"),
    [
        (1, 4, 2, 2, "1"),
        (2, 4, 2, 1, "2"),
        (2, 4, 1, 1, "2"),  # it will wait for the resources, and say so
        ("1..8", 1, 8, 1, "1..8"),
        ("1..8", 2, 8, 2, "1..4"),
        ("2..8", 3, 7, 3, "2"),
    ],
)
def test_trials_share_the_cluster(workers, parallel, cpus, trials, each) -> None:
    spec = job({"space": {"seed": [1, 2]}, "parallel": parallel}, resources={"workers": workers})
    found = at_once(spec, {"CPU": 1.0}, {"CPU": float(cpus), "memory": 1e9})
    assert found == (trials, WorkerRange.model_validate(each))


def test_the_scarcest_resource_counts() -> None:
    spec = job({"space": {"seed": [1, 2]}, "parallel": 4}, resources={"gpus_per_worker": 1})
    assert at_once(spec, {"CPU": 1.0, "GPU": 1.0}, {"CPU": 16.0, "GPU": 2.0})[0] == 2
    assert at_once(spec, {"CPU": 1.0, "GPU": 1.0}, {"CPU": 16.0})[0] == 1
