"""What the job file's ``training`` section does to the loop."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from schemas.job import JobCause
from tests.unit.workers.blobs import CLASSES, TRAIN, Blobs, OneSum, arrays, spec_of
from workers.errors import JobFailed, UsageError
from workers.task import cross_entropy
from workers.training import loop
from workers.training.feed import Feed
from workers.training.local import LocalEngine
from workers.training.stop import Verdict
from workers.training.trainer import balanced

VOLATILE = {"samples_per_s", "epoch_seconds"}


def train(task, spec, **options) -> LocalEngine:
    engine = LocalEngine("accuracy")
    loop.run(task, spec, engine, **options)
    return engine


def weights(engine: LocalEngine) -> dict[str, torch.Tensor]:
    return loop.unpack(engine.last)["model"]


def steady(reports):
    return [{k: v for k, v in r.items() if k not in VOLATILE} for r in reports]


def test_accumulated_batches_are_one_large_batch() -> None:
    # 70 samples: groups of 3 batches of 8 leave a last one of 6 samples in one batch.
    small = train(OneSum({"batch_size": 8}, 0), spec_of(accumulate=3, clip_norm=None))
    large = train(OneSum({"batch_size": 24}, 0), spec_of(clip_norm=None))
    for name, value in weights(large).items():
        assert torch.allclose(value, weights(small)[name], atol=1e-6), name


def test_accumulation_holds_with_class_weights_too() -> None:
    weighed = {"class_weights": "balanced", "clip_norm": None}
    small = train(OneSum({"batch_size": 7}, 0), spec_of(accumulate=2, **weighed))
    large = train(OneSum({"batch_size": 14}, 0), spec_of(**weighed))
    for name, value in weights(large).items():
        assert torch.allclose(value, weights(small)[name], atol=1e-6), name


def test_clipping_bounds_the_step_and_none_does_not() -> None:
    def moved(clip_norm: float | None) -> float:
        task = OneSum({"batch_size": TRAIN, "lr": 1.0}, 0)
        torch.manual_seed(0)
        before = task.model().state_dict()
        after = weights(train(task, spec_of({"max_epochs": 1}, clip_norm=clip_norm)))
        return math.sqrt(sum(float(((after[k] - before[k]) ** 2).sum()) for k in before))

    free = moved(None)
    assert free > 0.011
    assert moved(0.01) == pytest.approx(0.01, rel=1e-3)
    assert moved(1000.0) == pytest.approx(free, rel=1e-5)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    y = arrays(TRAIN, 0)[1]
    expected = compute_class_weight("balanced", classes=np.arange(CLASSES), y=y)
    task = Blobs({}, 0)
    train(task, spec_of({"max_epochs": 1}, class_weights="balanced"))
    assert task.class_weights.tolist() == pytest.approx(expected.tolist())
    assert balanced([10, 0, 30]) == [2.0, 1.0, pytest.approx(2 / 3)]


def test_weights_of_classes_change_what_is_learnt() -> None:
    plain, weighed = (
        train(Blobs({}, 0), spec_of(class_weights=kind)) for kind in ("none", "balanced")
    )
    assert plain.reports[0]["loss"] != weighed.reports[0]["loss"]


def test_a_class_without_a_label_is_bad_data() -> None:
    with pytest.raises(JobFailed, match=r"class 0\.\.3, but there are 3 labels") as caught:
        train(Blobs({"unlabelled": True}, 0), spec_of(class_weights="balanced"))
    assert caught.value.cause is JobCause.BAD_DATA


def test_weighted_cross_entropy_is_a_mean_over_samples() -> None:
    logits, y = torch.randn(10, 3), torch.randint(0, 3, (10,))
    w = torch.tensor([0.5, 2.0, 1.0])
    each = nn.functional.cross_entropy(logits, y, reduction="none") * w[y]
    assert torch.allclose(cross_entropy(logits, y, w), each.mean())
    assert torch.equal(cross_entropy(logits, y), nn.functional.cross_entropy(logits, y))


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"accumulate": 3, "schedule": {"kind": "cosine", "warmup_epochs": 1.5, "floor": 0.1}},
        {"schedule": {"kind": "linear"}, "class_weights": "balanced", "checkpoint_every": 2},
    ],
)
@pytest.mark.parametrize("config", [{}, {"shards": [30, 5, 20, 15]}])
def test_a_resumed_run_reports_what_an_unbroken_one_does(training, config) -> None:
    class Drawing(Blobs):
        """Draws from every source of chance that a user has."""

        def augment(self, x, generator):
            noise = torch.randn(x.shape, generator=generator)
            return x + 0.1 * noise + 0.1 * random.random() + 0.1 * float(np.random.normal())  # noqa: NPY002, S311 - as users do

        def model(self):
            return nn.Sequential(super().model(), nn.Dropout(0.2))

    spec = spec_of({"max_epochs": 5}, **training)
    whole = train(Drawing(config, 0), spec)
    for cut in (2, 4):
        first = LocalEngine("accuracy")

        def stop_there(metrics, cut=cut):
            if metrics["epoch"] == cut:
                raise KeyboardInterrupt

        first._on_epoch = stop_there
        with pytest.raises(KeyboardInterrupt):
            loop.run(Drawing(config, 0), spec, first)
        second = LocalEngine("accuracy", checkpoint=first.last)
        loop.run(Drawing(config, 0), spec, second)
        done = int(second.reports[0]["epoch"]) - 1
        assert steady(second.reports) == steady(whole.reports)[done:]
        assert all(torch.equal(v, weights(second)[k]) for k, v in weights(whole).items())


def test_a_checkpoint_of_an_older_version_is_taken_up() -> None:
    import io

    first = train(Blobs({}, 0), spec_of({"max_epochs": 1}))
    state = loop.unpack(first.last)
    for new in ("gap_epochs", "seconds"):
        del state["history"][new]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    second = LocalEngine("accuracy", checkpoint=buffer.getvalue())
    assert loop.run(Blobs({}, 0), spec_of(), second).history.epochs == 3


def test_checkpoints_come_every_so_often_and_with_each_best_and_the_last() -> None:
    taken: list[bool] = []

    class Noting(LocalEngine):
        def report(self, metrics, checkpoint):
            taken.append(checkpoint is not None)
            super().report(metrics, checkpoint)

    engine = Noting("accuracy")
    loop.run(Blobs({}, 0), spec_of({"max_epochs": 11}, checkpoint_every=4), engine)
    values = [r["accuracy"] for r in engine.reports]
    best = [v > max(values[:i], default=-1.0) for i, v in enumerate(values)]
    expected = [b or (i + 1) % 4 == 0 or i == 10 for i, b in enumerate(best)]
    assert taken == expected
    assert False in taken


def test_the_time_of_all_attempts_counts() -> None:
    ticks = iter(range(0, 10**9, 600))  # ten minutes at each look at the clock
    first = LocalEngine("accuracy")
    ended = loop.run(
        Blobs({}, 0), spec_of({"max_epochs": 1}), first, clock=lambda: float(next(ticks))
    )
    spent = ended.history.seconds
    assert spent > 600
    rules = {"max_epochs": 1000, "max_hours": (spent + 1) / 3600}
    second = LocalEngine("accuracy", checkpoint=first.last)
    ended = loop.run(Blobs({}, 0), spec_of(rules), second, clock=lambda: float(next(ticks)))
    assert (ended.verdict, ended.history.epochs) == (Verdict.TIME, 2)


def test_an_overfitted_run_ends() -> None:
    class Memory(Blobs):
        """Learns labels that say nothing of others."""

        def model(self):
            return nn.Sequential(nn.Linear(4, 256), nn.Tanh(), nn.Linear(256, CLASSES))

        def splits(self):
            found = super().splits()
            x, y = found.train.tensors
            generator = torch.Generator().manual_seed(0)
            y = y[torch.randperm(len(y), generator=generator)]
            return type(found)(torch.utils.data.TensorDataset(x, y), found.validation, found.test)

    rules = {"max_epochs": 400, "overfit_gap": 0.2, "overfit_epochs": 2}
    engine = LocalEngine("accuracy")
    ended = loop.run(Memory({"lr": 0.03}, 0), spec_of(rules), engine)
    assert ended.verdict is Verdict.OVERFIT
    gaps = [r["train_accuracy"] - r["accuracy"] > 0.2 for r in engine.reports]
    assert gaps[-2:] == [True, True]
    assert not any(a and b for a, b in itertools.pairwise(gaps[:-1]))


def test_own_metrics_are_means_over_the_whole_split() -> None:
    class Measuring(Blobs):
        def metrics(self, logits, y):
            ranks = logits.argsort(1, descending=True)
            return {"top2": (ranks[:, :2] == y[:, None]).any(1).float(), "ones": torch.ones(len(y))}

    engine = train(Measuring({}, 0), spec_of())
    net = Measuring({}, 0).model()
    net.load_state_dict(weights(engine))
    x, y = Blobs({}, 0).splits().validation.tensors
    top2 = (net(x).argsort(1, descending=True)[:, :2] == y[:, None]).any(1).float().mean()
    assert engine.reports[-1]["top2"] == pytest.approx(float(top2))
    assert engine.reports[-1]["ones"] == 1.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda n: {"loss": torch.ones(n)}, "'loss' is no name"),
        (lambda n: {"f 1": torch.ones(n)}, "'f 1' is no name"),
        (lambda _: {"f1": torch.ones(())}, "f1 is [], not one value per sample"),
        (lambda _: {"f1": 0.5}, "f1 is float"),
        (lambda n: {f"m{i}": torch.ones(n) for i in range(33)}, "33 metrics, more than 32"),
        (lambda n: {"f1": torch.full((n,), math.nan)}, "f1 is nan over the validation split"),
    ],
)
def test_own_metrics_that_cannot_be_used_are_refused(given, says) -> None:
    class Wrong(Blobs):
        def metrics(self, logits, y):
            del logits
            return given(len(y))

    with pytest.raises(JobFailed) as caught:
        train(Wrong({}, 0), spec_of())
    assert caught.value.cause is JobCause.USER_CODE
    assert says in caught.value.detail
    assert "\n" not in caught.value.detail


def test_a_model_or_a_loss_of_the_wrong_shape_is_said_so() -> None:
    class Wide(Blobs):
        def model(self):
            return nn.Linear(4, 5)

    class PerSample(Blobs):
        def loss(self, logits, y):
            return nn.functional.cross_entropy(logits, y, reduction="none")

    with pytest.raises(JobFailed, match=r"gives \[8, 5\].*must be \[8, 3\]"):
        train(Wide({}, 0), spec_of())
    with pytest.raises(JobFailed, match=r"Task\.loss gives \[8\], not one number"):
        train(PerSample({}, 0), spec_of())


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"batch_size": 0}, r"config.batch_size: 0 is no whole number"),
        ({"batch_size": 2.5}, "config.batch_size"),
        ({"lr": "fast"}, "config.lr: 'fast' is no number"),
    ],
)
def test_figures_of_the_config_are_checked(config, says) -> None:
    with pytest.raises(UsageError, match=says):
        train(Blobs(config, 0), spec_of())


def test_training_accuracy_is_of_the_epoch_as_it_was_trained() -> None:
    engine = train(OneSum({"lr": 1e-12}, 0), spec_of({"max_epochs": 1}))
    net = Blobs({}, 0).model()
    net.load_state_dict(weights(engine))
    x, y = Blobs({}, 0).splits().train.tensors
    assert engine.reports[0]["train_accuracy"] == pytest.approx(
        float((net(x).argmax(1) == y).float().mean())
    )


def test_bf16_autocast_reaches_the_net_and_not_the_metrics() -> None:
    seen: dict[str, torch.dtype] = {}

    class Peeking(Blobs):
        def loss(self, logits, y):
            seen["logits"] = logits.dtype
            return super().loss(logits, y)

        def metrics(self, logits, y):
            seen["metrics"] = logits.dtype
            return {"n": y.float()}

    engine = train(Peeking({}, 0), spec_of(precision="bf16"))
    assert seen == {"logits": torch.bfloat16, "metrics": torch.float32}
    assert all(v.dtype is torch.float32 for v in weights(engine).values())


def test_steps_are_told_at_most_twice_a_second_and_beats_at_every_batch() -> None:
    now = [0.0]
    steps, beats = [], []

    class Watched(LocalEngine):
        def beat(self):
            beats.append(now[0])
            now[0] += 0.1  # a batch takes a tenth of a second

    engine = Watched("accuracy", on_step=lambda step: steps.append((now[0], step)))
    loop.run(Blobs({}, 0), spec_of({"max_epochs": 4}), engine, clock=lambda: now[0])
    per_epoch = math.ceil(TRAIN / 8)
    assert len(beats) == 4 * (per_epoch + 1 + 1)  # batches, one of validation, the report
    assert min(b[0] - a[0] for a, b in itertools.pairwise(steps)) >= 0.5 - 1e-9
    assert 6 <= len(steps) <= 10
    assert {s.total for _, s in steps} == {per_epoch}
    when, last = steps[-1]
    assert last.samples_per_s == pytest.approx(80, rel=0.1)
    assert last.loss is not None
    assert math.isfinite(last.loss)
    assert last.eta_seconds == pytest.approx((4 * (per_epoch + 2)) / 10 - when, abs=0.6)


def test_loading_processes_give_the_same_batches_and_name_what_fails() -> None:
    splits = Blobs({"shards": [30, 5, 20, 15]}, 0).splits()
    feeds = [
        Feed(splits, batch_size=8, rank=0, world_size=1, seed=0, loaders=loaders)
        for loaders in (0, 1)
    ]
    here, there = (list(feed.train(1)) for feed in feeds)
    for (x, y), (other_x, other_y) in zip(here, there, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


class Failing:
    """A set that cannot give one of its samples."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == 7:
            msg = "no such file"
            raise RuntimeError(msg)
        return torch.zeros(4), 0


class Ragged(Failing):
    def __getitem__(self, index):
        return torch.zeros(4 + index % 2), 0


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_sample_that_cannot_be_read_is_the_users_with_file_and_line(loaders) -> None:
    held = Blobs({}, 0).splits()
    splits = type(held)(Failing(), held.validation, held.test)
    feed = Feed(splits, batch_size=12, rank=0, world_size=1, seed=0, loaders=loaders)
    with pytest.raises(
        JobFailed, match=r"test_worker_loop_options\.py:\d+: RuntimeError: no such"
    ) as caught:
        list(feed.train(1))
    assert caught.value.cause is JobCause.USER_CODE


def test_samples_of_different_shapes_are_bad_data() -> None:
    held = Blobs({}, 0).splits()
    splits = type(held)(Ragged(), held.validation, held.test)
    feed = Feed(splits, batch_size=12, rank=0, world_size=1, seed=0)
    with pytest.raises(JobFailed, match="make no batch") as caught:
        list(feed.train(1))
    assert caught.value.cause is JobCause.BAD_DATA


def test_a_task_finds_its_data_in_the_constructor() -> None:
    from workers.task import load_task

    task = load_task("tests.unit.workers.blobs:Reading", {}, 0, "/data/set")
    assert (task.data_path, task.found) == ("/data/set", "/data/set")


@pytest.mark.integration
def test_a_compiled_model_learns_and_keeps_plain_names() -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    task, rules = Blobs({"batch_size": TRAIN // 2}, 0), {"max_epochs": 2}
    engine = train(task, spec_of(rules, compile=True))
    assert counters["stats"]["unique_graphs"] >= 2, "for training and for validation"
    plain = train(task, spec_of(rules))
    assert weights(engine).keys() == weights(plain).keys()
    for name, value in weights(plain).items():
        assert torch.allclose(value, weights(engine)[name], atol=1e-4)


def test_a_model_that_cannot_be_compiled_says_how_to_do_without(monkeypatch) -> None:
    torch_compile = torch.compile

    def compile_without_a_compiler(net):
        def backend(graph, inputs):
            msg = "no C++ compiler found"
            raise RuntimeError(msg)

        return torch_compile(net, backend=backend)

    monkeypatch.setattr(torch, "compile", compile_without_a_compiler)
    says = r"no C\+\+ compiler.*set training\.compile: false"
    with pytest.raises(JobFailed, match=says) as caught:
        train(Blobs({}, 0), spec_of(compile=True))
    assert caught.value.cause is JobCause.USER_CODE
    assert "\n" not in caught.value.detail
