"""Two workers over gloo do what one would do with their batches together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.unit.workers import blobs
from tests.unit.workers.blobs import OneSum, spec_of
from workers.training import loop
from workers.training.local import LocalEngine

ROOT = Path(blobs.__file__).parents[3]

pytestmark = pytest.mark.integration


ONE_SUM = "tests.unit.workers.blobs:OneSum"
SCENARIOS = {
    "plain": (spec_of(task=ONE_SUM, clip_norm=None), {"batch_size": 14}),
    "accumulated": (
        spec_of(task=ONE_SUM, clip_norm=None, accumulate=2, class_weights="balanced"),
        {"batch_size": 10},
    ),
    "sample": (spec_of(), {"bad": [37]}),
    "shard": (spec_of(), {"bad": [37], "shards": [30, 5, 20, 15]}),
    "gradient": (spec_of(task="tests.unit.workers.blobs:RootOfZero"), {"batch_size": 4}),
    "idle": (spec_of(task="tests.unit.workers.blobs:Idle"), {}),
    "splits": (spec_of(task="tests.unit.workers.blobs:Drifting"), {}),
    "metric": (spec_of(task="tests.unit.workers.blobs:Uneven"), {"held": 1}),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, list[dict]]:
    """What each of the two workers says of each scenario; one pair of processes for all."""
    store = tmp_path_factory.mktemp("gloo") / "store"
    asked = json.dumps([[s.model_dump(mode="json"), c] for s, c in SCENARIOS.values()])
    command = [sys.executable, "-m", "tests.unit.workers.two_workers"]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(store), asked], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    try:
        said = [worker.communicate(timeout=200)[0].splitlines() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return {name: [json.loads(lines[i]) for lines in said] for i, name in enumerate(SCENARIOS)}


@pytest.mark.parametrize("name", ["plain", "accumulated"])
def test_two_workers_learn_what_one_does(found, name) -> None:
    # 70 samples are dealt out without padding, so the steps are the same.
    spec, config = SCENARIOS[name]
    workers = found[name]
    alone = LocalEngine("accuracy")
    loop.run(OneSum(config, 0), spec, alone)
    expected = loop.unpack(alone.last)["model"]
    for key, value in workers[0]["weights"].items():
        assert torch.allclose(torch.tensor(value), expected[key], atol=1e-5), key
    assert [worker["checkpoint"] for worker in workers] == [True, False]
    for one, two, three in zip(*(w["reports"] for w in workers), alone.reports, strict=True):
        assert one == two, "reduced figures are the same on each"
        for key in ("loss", "train_accuracy", "validation_loss", "accuracy"):
            assert one[key] == pytest.approx(three[key], abs=1e-5)


@pytest.mark.parametrize(("name", "sample"), [("sample", "37"), ("shard", "shard-2 row 2")])
def test_both_tell_of_the_batch_that_one_of_them_had(found, name, sample) -> None:
    one, two = (worker["failure"] for worker in found[name])
    assert one == two
    assert one[0] == "diverged"
    assert "the loss was nan" in one[1]
    assert f"NaN and 0 infinite values, in {sample}, range" in one[1]


def test_the_gradient_of_one_is_told_by_both(found) -> None:
    one, two = (worker["failure"] for worker in found["gradient"])
    assert one == two
    assert "the gradient was nan in epoch 1" in one[1]
    classes = one[1].split("classes ")[1].split(";")[0]
    assert "2" in classes, "the batch with the rare class, whichever worker had it"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("idle", "2 parameters of the model have no part in the loss (idle.weight, idle.bias)"),
        ("splits", "Task.splits gives"),
    ],
)
def test_what_one_process_allows_and_two_do_not_is_explained(found, name, says) -> None:
    for worker in found[name]:
        cause, detail = worker["failure"]
        assert cause == "user_code"
        assert says in detail


def test_a_worker_without_a_validation_sample_agrees_with_the_other(found) -> None:
    one, two = (worker["reports"] for worker in found["metric"])
    assert one == two
    assert {report["one"] for report in one} == {1.0}
