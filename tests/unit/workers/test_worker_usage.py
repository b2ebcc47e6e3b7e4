"""Usage, live figures and waiting: what a job takes and what it waits for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.jobfile import Resources
from workers.distributed import board
from workers.distributed.board import Board, Vitals
from workers.driver import usage, waiting
from workers.driver.usage import Meter
from workers.driver.waiting import Offer, Tell, Wait
from workers.memory import GIB
from workers.training.steps import Step

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_reserved_seconds_run_from_up_to_down_over_restarts() -> None:
    meter = usage.up(Meter(), 0, workers=2, cpus=2, gpus=4, now=10)
    meter = usage.down(meter, 0, 15)
    assert usage.total(meter, 99) == usage.total(meter, 15), "nothing runs while no group is up"
    meter = usage.up(meter, 0, workers=1, cpus=1, gpus=2, now=20)
    found = usage.total(meter, 30)
    assert (found.wall_seconds, found.cpu_seconds, found.gpu_seconds) == (15, 20, 40)
    assert meter.workers == 1
    assert usage.total(usage.down(meter, 0, 30), 77) == found


def test_a_group_that_comes_up_again_replaces_the_one_before() -> None:
    meter = usage.up(Meter(), 0, workers=4, cpus=4, gpus=0, now=0)
    meter = usage.up(meter, 0, workers=2, cpus=2, gpus=0, now=10)
    assert usage.total(meter, 20).cpu_seconds == 60
    assert usage.down(meter, 3, 20) == meter


def test_trials_at_once_share_the_wall_and_add_their_cores() -> None:
    meter = usage.up(Meter(), 1, workers=1, cpus=1, gpus=0, now=0)
    meter = usage.up(meter, 2, workers=1, cpus=1, gpus=0, now=5)
    meter = usage.down(meter, 1, 10)
    found = usage.total(usage.down(meter, 2, 15), 15)
    assert (found.wall_seconds, found.cpu_seconds) == (15, 20)


def test_cpu_time_of_a_process_that_died_stays_counted() -> None:
    meter = usage.used(Meter(), "a", 4.0)
    meter = usage.used(meter, "a", 3.0)
    meter = usage.used(meter, "b", 2.0)
    assert usage.total(meter, 0).cpu_used_seconds == 6.0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 100)), max_size=40),
)
def test_what_was_used_never_shrinks(events: list[tuple[int, bool, float]]) -> None:
    meter, now, before = Meter(), 0.0, usage.total(Meter(), 0)
    for trial, starts, pause in events:
        now += pause
        if starts:
            meter = usage.up(meter, trial, workers=1, cpus=1, gpus=1, now=now)
        else:
            meter = usage.down(meter, trial, now)
        found = usage.total(meter, now)
        assert found.wall_seconds >= before.wall_seconds - 1e-6
        assert found.cpu_seconds >= before.cpu_seconds - 1e-6
        assert found.cpu_seconds >= found.wall_seconds - 1e-6
        assert found.wall_seconds <= now + 1e-6
        before = found


def test_live_figures_put_the_workers_together() -> None:
    view = board.stepped(Board(), 0, Step(3, 5, 10, loss=0.5, samples_per_s=100, eta_seconds=9))
    view = board.told(view, "0", Vitals(80, 400, 5, gpu_percent=40, gpu_mem_mb=100), 1.0)
    view = board.told(view, "1", Vitals(90, 700, 5, gpu_percent=60, gpu_mem_mb=300), 2.0)
    live = board.live(view, workers=2, now=3.0, at=NOW)
    assert (live.epoch, live.done, live.total, live.loss) == (3, 5, 10, 0.5)
    assert (live.cpu_percent, live.rss_mb) == (170, 700)
    assert (live.gpu_percent, live.gpu_mem_mb) == (50, 300)
    later = board.live(view, workers=1, now=1.5 + board.STALE, at=NOW)
    assert later.cpu_percent == 90, "a worker that is silent is gone"


def test_live_figures_without_any_are_empty() -> None:
    live = board.live(Board(), workers=0, now=0, at=NOW)
    assert (live.epoch, live.cpu_percent, live.gpu_percent) == (None, None, None)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"workers": 4, "gpus_per_worker": 1},
            (
                "asks for 4 workers of 1 CPU and 1 GPU; the cluster has 4 CPUs and 0 GPUs, "
                "of which 2 CPUs are free"
            ),
        ),
        (
            {"workers": "2..8", "cpus_per_worker": 2},
            "asks for 2..8 workers of 2 CPUs; the cluster has 4 CPUs, of which 2 CPUs are free",
        ),
        (
            {"workers": 1, "memory_gb": 64},
            (
                "asks for 1 worker of 1 CPU and 64 GiB; the cluster has 4 CPUs and 8.0 GiB, "
                "of which 2 CPUs and 6.0 GiB are free"
            ),
        ),
    ],
)
def test_what_is_waited_for_is_a_sentence(asked: dict, said: str) -> None:
    offer = Offer({"CPU": 4.0, "memory": 8 * GIB}, {"CPU": 2.0, "memory": 6 * GIB})
    assert waiting.sentence(Resources.model_validate(asked), offer) == said


def walk(steps: list[tuple[float, bool, bool]], limit: float = 60) -> list[Tell]:
    wait, found = Wait(), []
    for now, up, stuck in steps:
        wait, tell = waiting.look(wait, up=up, stuck=stuck, now=now, limit=limit)
        found.append(tell)
    return found


def test_waiting_is_told_after_a_moment_again_and_cleared() -> None:
    said = walk([
        (0, False, True),
        (2, False, True),
        (5, False, True),
        (6, False, True),
        (16, False, True),
        (17, False, False),
        (18, True, False),
    ])  # fmt: skip
    assert said == [
        Tell.NOTHING,
        Tell.NOTHING,
        Tell.SAY,
        Tell.NOTHING,
        Tell.SAY,
        Tell.CLEAR,
        Tell.NOTHING,
    ]


def test_processes_that_start_wait_for_nothing() -> None:
    assert set(walk([(t, False, False) for t in range(0, 200, 10)])) == {Tell.NOTHING}


def test_waiting_ends_at_its_limit_and_begins_anew_after_workers() -> None:
    assert walk([(0, False, True), (59, False, True), (60, False, True)])[-1] is Tell.FAIL
    assert walk([(0, False, True), (59, True, False), (61, False, True), (80, False, True)]) == [
        Tell.NOTHING,
        Tell.NOTHING,
        Tell.NOTHING,
        Tell.SAY,
    ]


def test_nothing_fails_before_it_was_told_what_is_waited_for() -> None:
    late = [(0, False, True), (70, False, True), (71, False, True)]
    assert walk(late) == [Tell.NOTHING, Tell.SAY, Tell.FAIL]


def test_only_groups_of_this_job_are_looked_at() -> None:
    table = {"aa01": {"state": "PENDING"}, "bb02": {"state": "CREATED"}}
    assert waiting.unplaced(table, "01")
    assert not waiting.unplaced(table, "02")


def test_a_cluster_can_be_too_small_as_a_whole() -> None:
    asked = Resources.model_validate({"workers": "2..8", "memory_gb": 2})
    assert waiting.lacks(asked, {"CPU": 1.0, "memory": 64 * GIB})
    assert waiting.lacks(asked, {"CPU": 8.0, "memory": 3 * GIB})
    assert not waiting.lacks(asked, {"CPU": 2.0, "memory": 4 * GIB})
