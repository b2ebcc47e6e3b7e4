"""A loss or gradient that is not finite: found, and told with the batch that made it."""

from __future__ import annotations

import math

import pytest
import torch

from schemas.job import JobCause
from tests.unit.workers.blobs import TRAIN, Blobs, OneSum, RootOfZero, spec_of
from workers.errors import JobFailed
from workers.training import loop
from workers.training.divergence import MAX_NAMED, facts_of
from workers.training.feed import Feed
from workers.training.local import LocalEngine
from workers.training.step_guard import Bad, StepGuard, _Step, first_bad

IMMEDIATE, DEFERRED = 1, 4


def failure(task, spec, read_every=IMMEDIATE) -> tuple[JobFailed, LocalEngine]:
    engine = LocalEngine("accuracy")
    with pytest.raises(JobFailed) as caught:
        loop.run(task, spec, engine, read_every=read_every)
    assert caught.value.cause is JobCause.DIVERGED
    assert "\n" not in caught.value.detail
    return caught.value, engine


def batch_of(task, sample: int, epoch: int = 1) -> int:
    """The number, from 1, of the batch that holds a training sample."""
    feed = Feed(task.splits(), batch_size=task.batch_size, rank=0, world_size=1, seed=0)
    return next(i for i, b in enumerate(feed.plan(epoch), start=1) if sample in b.tolist())


@pytest.mark.parametrize("read_every", [IMMEDIATE, DEFERRED])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_sample_with_a_nan_is_named(read_every, accumulate) -> None:
    task = Blobs({"bad": [37]}, 0)
    found, engine = failure(task, spec_of(accumulate=accumulate), read_every)
    number = batch_of(task, 37)
    assert f"the loss was nan in epoch 1, batch {number}, on worker 0" in found.detail
    assert "its inputs hold 4 NaN and 0 infinite values, in 37," in found.detail
    assert "repair or remove these samples" in found.detail
    if number > 1:
        assert "last finite loss none" not in found.detail
    assert engine.reports == [], "what cannot travel is not reported"


def test_a_sample_of_a_shard_is_named_by_shard_and_row() -> None:
    task = Blobs({"bad": [37], "shards": [30, 5, 20, 15]}, 0)
    found, _ = failure(task, spec_of())
    assert "infinite values, in shard-2 row 2," in found.detail


def test_a_diverging_rate_is_named_with_range_classes_and_rate() -> None:
    class Growing(OneSum):
        def loss(self, logits, y):
            return (super().loss(logits, y) * 1e30) ** 2

    found, _ = failure(Growing({}, 0), spec_of(clip_norm=None))
    for part in (
        "its inputs are finite, range -",
        "classes 0, 1",
        "learning rate 0.1",
        "lower the",
    ):
        assert part in found.detail
    assert f"({MAX_NAMED} in all)" not in found.detail


def test_an_augmentation_that_makes_nan_is_named() -> None:
    class Dividing(Blobs):
        def augment(self, x, generator):
            return x * float(torch.rand(1, generator=generator)) / 0.0 * 0.0

    found, _ = failure(Dividing({}, 0), spec_of())
    assert "the task's augment makes NaN or infinite values of them" in found.detail


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_gradient_is_found_though_the_loss_is_finite_and_no_step_is_made(accumulate) -> None:
    kept: list[torch.nn.Module] = []

    class Keeping(RootOfZero):
        def model(self):
            kept.append(super().model())
            return kept[-1]

    task = Keeping({}, 0)
    found, _ = failure(task, spec_of(accumulate=accumulate))
    y = task.splits().train.tensors[1]
    feed = Feed(task.splits(), batch_size=8, rank=0, world_size=1, seed=0)
    first = next(i for i, b in enumerate(feed.plan(1), 1) if bool((y[b] == 2).any()))
    assert f"the gradient was nan in epoch 1, batch {first}, on worker 0: its batch" in found.detail
    assert all(bool(torch.isfinite(p).all()) for p in kept[0].parameters())


def test_a_fused_optimizer_makes_no_such_step_even_where_it_is_read_later() -> None:
    kept: list[torch.nn.Module] = []

    class Fused(RootOfZero):
        def model(self):
            kept.append(super().model())
            return kept[-1]

        def optimizer(self, model):
            return torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)

    found, _ = failure(Fused({}, 0), spec_of(), DEFERRED)
    assert "the gradient was nan in epoch 1" in found.detail
    assert all(bool(torch.isfinite(p).all()) for p in kept[0].parameters())


def test_a_fused_optimizer_is_not_held_back_by_what_is_finite() -> None:
    class Fused(Blobs):
        def optimizer(self, model):
            return torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)

    engines = [LocalEngine("accuracy") for _ in range(2)]
    for engine, every in zip(engines, (IMMEDIATE, DEFERRED), strict=True):
        loop.run(Fused({}, 0), spec_of(), engine, read_every=every)
    one, two = (loop.unpack(e.last)["model"] for e in engines)
    assert all(torch.equal(v, two[k]) for k, v in one.items())
    assert engines[0].reports[-1]["loss"] == pytest.approx(engines[1].reports[-1]["loss"])


def test_a_validation_loss_is_named_with_its_batch() -> None:
    class Late(Blobs):
        def loss(self, logits, y):
            found = super().loss(logits, y)
            return found if torch.is_grad_enabled() else found / 0.0

    found, engine = failure(Late({}, 0), spec_of())
    assert "the validation loss was infinite in epoch 1, batch 1, on worker 0" in found.detail
    assert "the validation samples 0, 1, 2" in found.detail
    assert engine.reports == []


def test_the_epochs_before_keep_their_checkpoints() -> None:
    class Turning(Blobs):
        calls = 0

        def loss(self, logits, y):
            self.calls += 1
            return super().loss(logits, y) * (math.inf if self.calls > 25 else 1.0)

    found, engine = failure(Turning({}, 0), spec_of())
    assert "in epoch 3" in found.detail
    assert len(engine.reports) == 2
    assert loop.unpack(engine.last)["history"]["epochs"] == 2


def test_the_first_bad_one_is_found_wherever_it_is() -> None:
    steps = [_Step(0, (1.0, 2.0), 1.0), _Step(2, (3.0, math.inf), math.nan), _Step(4, (1.0,), 1.0)]
    assert first_bad(steps, None) == Bad(3, math.inf, pytest.approx(math.nan, nan_ok=True), 3.0)
    assert first_bad(steps[:1], None) is None
    last = first_bad([_Step(8, (1.0, 2.0), math.inf)], 0.5)
    assert last == Bad(9, 2.0, math.inf, 2.0)


def test_a_guard_reads_only_when_it_is_due() -> None:
    guard = StepGuard(torch.device("cpu"), every=3)
    bad = torch.tensor(math.nan)
    for _ in range(2):
        guard.saw(bad, 4)
        assert guard.step(torch.tensor(1.0)) is None
    guard.saw(torch.tensor(1.0), 4)
    found = guard.step(torch.tensor(1.0))
    assert found is not None
    assert found.batch == 0
    guard.begin()
    guard.saw(torch.tensor(2.0), 4)
    guard.saw(torch.tensor(4.0), 2)
    assert guard.read() is None
    assert guard.total == 16.0
    assert guard.last_loss == 4.0


def test_facts_are_of_the_finite_values() -> None:
    x = torch.tensor([[1.0, -2.0], [math.nan, 5.0], [math.inf, math.inf]])
    found = facts_of(x, torch.tensor([2, 0, 2]))
    assert (found.nan, found.inf, found.low, found.high) == (1, 2, -2.0, 5.0)
    assert (found.broken, found.classes) == ((1, 2), (0, 2))
    assert facts_of(torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(2)).broken == ()


def test_a_long_batch_is_not_listed_whole() -> None:
    found, _ = failure(Blobs({"bad": [1], "batch_size": TRAIN}, 0), spec_of())
    assert f"({TRAIN} in all)" in found.detail
    assert len(found.detail) < 1000
