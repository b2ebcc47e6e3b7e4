from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import training
from benchmarks._training_marks import (
    Marks,
    Moment,
    first_step,
    parse,
    read,
    samples_per_s,
    step_us,
)
from benchmarks._training_overhead import measure
from benchmarks._training_submit import spec_of
from benchmarks._training_task import TimedDigits
from workers.task import load_task


def marks(*starts: float, length: float = 1.0) -> Marks:
    epochs = tuple((Moment(s, s / 2), Moment(s + length, s / 2 + length / 4)) for s in starts)
    return Marks(starts[0], epochs)


def test_the_slowest_worker_and_whole_epochs_after_the_first_count() -> None:
    fast, slow = marks(0, 10, 12, 14, 16), marks(0, 10, 13, 16, 19)
    assert samples_per_s((fast, slow), 300) == pytest.approx(3 * 300 / 9)
    assert first_step((marks(5, 6), marks(4, 9))) == 4
    with pytest.raises(ValueError, match="2 epochs are too few"):
        samples_per_s((marks(0, 1),), 300)


def test_a_step_is_that_of_the_epoch_least_disturbed() -> None:
    one = Marks(
        0.0,
        (
            (Moment(0, 0), Moment(0.1, 0.1)),  # settling
            (Moment(1, 1), Moment(3, 2.5)),
            (Moment(5, 4), Moment(6, 4.75)),
        ),
    )
    assert step_us(one, 101) == (pytest.approx(10_000), pytest.approx(7500))


def test_notes_are_read_back_and_a_torn_line_waits(tmp_path) -> None:
    (tmp_path / "m-0-17").write_text("begin 1.5\nepoch 1.5 0.5 2.5 1.0\nepoch 3")
    (found,) = read(tmp_path / "m")
    assert found == Marks(1.5, ((Moment(1.5, 0.5), Moment(2.5, 1.0)),))
    with pytest.raises(ValueError, match="no step"):
        parse("")
    with pytest.raises(ValueError, match="no worker"):
        read(tmp_path / "nobody")


def test_the_task_has_equal_steps_and_notes_both_ends_of_each_epoch(tmp_path) -> None:
    config = {"repeat": 1, "batch_size": 500, "marks": str(tmp_path / "m")}
    task = load_task("benchmarks._training_task:TimedDigits", config, 0)
    assert isinstance(task, TimedDigits)
    train = task.splits().train
    assert len(train) == 1000
    x = torch.zeros(1)
    for _ in range(5):
        assert task.augment(x, torch.Generator()) is x
    (found,) = read(tmp_path / "m")
    assert len(found.epochs) == 2
    assert found.begun == found.epochs[0][0].at
    for first, last in found.epochs:
        assert first.at <= last.at
        assert first.cpu <= last.cpu


def test_sides_take_turns_and_who_begins_moves_on() -> None:
    order: list[str] = []

    def side(name: str):
        def measured() -> dict[str, float]:
            order.append(name)
            return {"x": float(len(order))}

        return measured

    found = training.in_turn({name: side(name) for name in "abc"}, 3)
    assert "".join(order) == "abcbcacab"
    assert found == {"a": {"x": (1, 6, 8)}, "b": {"x": (2, 4, 9)}, "c": {"x": (3, 5, 7)}}


def test_ratios_are_those_of_the_same_round() -> None:
    assert training.ratios([1, 4, 9], [1, 2, 3]) == {"median": 2, "q1": 1.5, "q3": 2.5}
    assert training.spread([7.0]) == {"median": 7.0, "q1": 7.0, "q3": 7.0}


def test_the_overhead_is_the_difference_within_a_round() -> None:
    found = training.overhead_of(
        [{"ours": [110, 55], "bare": [100, 50]}, {"ours": [230, 57], "bare": [200, 50]}]
    )
    assert found["overhead_us"] == {
        "wall": {"median": 20, "q1": 15, "q3": 25},
        "cpu": {"median": 6, "q1": 5.5, "q3": 6.5},
    }
    assert found["step_us"]["bare"]["cpu"]["median"] == 50


@pytest.mark.parametrize(("gpus", "workers", "per_worker"), [(0, 2, 0), (1, 1, 1), (4, 4, 1)])
def test_a_gpu_machine_has_one_worker_per_gpu(gpus, workers, per_worker) -> None:
    for quick in (True, False):
        load = training.load_of(gpus, quick=quick)
        spec = load.spec(Path("/m"))
        assert spec.resources.workers.max == workers
        assert spec.resources.gpus_per_worker == per_worker
        assert load.batch % workers == 0, "each worker has as many samples"
        assert load.samples % load.batch == 0
        assert spec.stop.max_epochs >= 3, "of which at least one is measured"


def test_the_submitted_job_is_the_same_task_from_a_folder() -> None:
    spec = spec_of(Path("/m"), 2, 0)
    assert spec.entrypoint.partition(":")[2] == TimedDigits.__name__


def test_both_loops_are_measured_in_one_process(tmp_path, monkeypatch) -> None:
    from benchmarks import _training_overhead as overhead

    monkeypatch.setattr(overhead, "CONFIG", {"repeat": 1, "batch_size": 64, "width": 0.1})
    for side in ("ours", "bare"):
        wall, cpu = measure(side, tmp_path / side)
        assert 0 < wall < 1e6
        assert 0 < cpu < 1e6
