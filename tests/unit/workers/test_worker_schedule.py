"""Learning rates on a real optimizer."""

from __future__ import annotations

import pytest
import torch

from schemas.jobfile import Schedule
from tests.unit.workers.blobs import Blobs, spec_of
from workers.training import loop
from workers.training.local import LocalEngine
from workers.training.schedule import Rates, factor


def optimizer_of(**options) -> torch.optim.Optimizer:
    one, two = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    return torch.optim.AdamW([{"params": [one], "lr": 0.1}, {"params": [two]}], lr=0.01, **options)


def test_each_group_keeps_its_own_rate_below_the_factor() -> None:
    optimizer = optimizer_of()
    rates = Rates(optimizer, Schedule(kind="linear"))
    rates.apply(5, 10, 1)
    assert [g["lr"] for g in optimizer.param_groups] == [pytest.approx(0.05), pytest.approx(0.005)]
    assert rates.now == pytest.approx(0.05)


def test_a_rate_in_a_tensor_is_changed_in_place() -> None:
    rate = torch.tensor(0.01)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    Rates(optimizer, Schedule(kind="linear")).apply(5, 10, 1)
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.005)


def test_a_constant_schedule_leaves_the_rate_to_the_task() -> None:
    optimizer = optimizer_of()
    rates = Rates(optimizer, Schedule())
    optimizer.param_groups[0]["lr"] = 0.7
    rates.apply(5, 10, 1)
    assert rates.now == 0.7


def test_steps_are_those_of_the_optimizer_and_go_on_after_a_resume() -> None:
    seen: list[float] = []

    class Noting(Blobs):
        def optimizer(self, model):
            found = super().optimizer(model)
            found.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
            return found

    schedule = {"kind": "cosine", "warmup_epochs": 1.5, "floor": 0.1}
    spec = spec_of({"max_epochs": 4}, schedule=schedule, accumulate=4)
    steps = 3  # 70 samples make 9 batches of 8: groups of 4, 4 and 1
    expected = [1e-3 * factor(s, steps, 4, Schedule(**schedule)) for s in range(4 * steps)]
    engine = LocalEngine("accuracy")
    loop.run(Noting({}, 0), spec, engine)
    assert seen == pytest.approx(expected)
    assert [r["lr"] for r in engine.reports] == pytest.approx(expected[steps - 1 :: steps])

    seen.clear()
    first = LocalEngine("accuracy")
    stored: list[bytes] = []
    first._on_epoch = lambda _: stored.append(first.last)
    loop.run(Noting({}, 0), spec, first)
    seen.clear()
    loop.run(Noting({}, 0), spec, LocalEngine("accuracy", checkpoint=stored[1]))
    assert seen == pytest.approx(expected[2 * steps :])
