"""Fine-tuning and quantization in the loop, on the real digits; seconds each."""

from __future__ import annotations

import copy
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime.quantization as ort_quantization
import pytest
import torch
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from schemas.jobfile import JobSpec
from tests.unit.workers.nets import made
from workers.errors import JobFailed, UsageError
from workers.optimization.executor import beating
from workers.optimization.exporting import formats
from workers.optimization.exporting.export import export
from workers.optimization.pruning.finetune import PruneOrder, load_net, prune_and_tune, trained_net
from workers.optimization.pruning.netfile import pack_net
from workers.optimization.pruning.qat import QatOrder, rounded, train_quantized
from workers.optimization.pruning.tune import distance, validate
from workers.optimization.session import infer, open_session
from workers.task import Task, load_task
from workers.training.checkpoint import pack
from workers.training.local import LocalEngine
from workers.training.loop import run
from workers.training.stop import History

CPU = torch.device("cpu")


def spec_of(**optimize: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "digits",
            "task": "workers.recipes.digits:Digits",
            "config": {"width": 0.5},
            "stop": {"require_target": False, "max_epochs": 8},
            "optimize": optimize,
        }
    )


def task_of(spec: JobSpec) -> Task:
    return load_task(spec.entrypoint, spec.config, spec.seed)


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    spec = spec_of()
    engine = LocalEngine("accuracy")
    run(task_of(spec), spec, engine)
    assert engine.best is not None
    return engine.best


def accuracy(spec: JobSpec, net: nn.Module) -> float:
    return validate(task_of(spec), spec, net, CPU)


def test_fine_tuning_recovers_what_pruning_took(checkpoint: bytes) -> None:
    spec = spec_of(finetune_epochs=8)
    whole = accuracy(spec, trained_net(task_of(spec), checkpoint))
    beats: list[int] = []

    with beating(lambda: beats.append(1)):
        found = prune_and_tune(PruneOrder(spec, checkpoint, 0.5))

    pruned, tuned = found.passes
    before = float(tuned.parameters["validation_accuracy_before"])
    assert whole > 0.95
    assert before < whole - 0.05
    assert found.validation_accuracy > whole - 0.04
    assert found.validation_accuracy > before
    assert found.epochs == 8
    assert len(beats) > 8 * 33
    assert pruned.parameters["weights"] < 0.4 * pruned.parameters["weights_before"]  # type: ignore[operator]
    assert pruned.output_sha256 == tuned.input_sha256
    net = load_net(task_of(spec), found.net)
    assert accuracy(spec, net) == pytest.approx(found.validation_accuracy)
    assert found.channels["features.0"] == (16, net.get_submodule("features.0").out_channels)


def test_the_same_order_gives_the_same_bytes(checkpoint: bytes) -> None:
    order = PruneOrder(spec_of(finetune_epochs=1, distill=0.5), checkpoint, 0.75)

    one, other = prune_and_tune(order), prune_and_tune(order)

    assert one.passes == other.passes
    assert one.net == other.net


def test_without_epochs_the_net_is_only_pruned(checkpoint: bytes) -> None:
    found = prune_and_tune(PruneOrder(spec_of(finetune_epochs=0), checkpoint, 0.5))

    assert found.epochs == 0
    assert found.passes[0].output_sha256 == found.passes[1].output_sha256


def test_a_teacher_draws_the_answers_to_its_own() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    taught = torch.tensor([[1.0, 0.0], [0.0, 3.0]])

    assert float(distance(taught, taught)) == pytest.approx(0.0, abs=1e-6)
    distance(logits, taught).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] > 0 > logits.grad[1, 1]


def test_a_net_that_was_packed_comes_back_without_running_code(checkpoint: bytes) -> None:
    spec = spec_of(finetune_epochs=0)
    found = prune_and_tune(PruneOrder(spec, checkpoint, 0.5))
    stored = torch.load(io.BytesIO(found.net), weights_only=True)

    assert set(stored) == {"state", "sizes"}
    with pytest.raises(JobFailed, match="cannot be read"):
        load_net(task_of(spec), found.net[:-500])
    other = spec.model_copy(update={"config": {"width": 1.0}})
    assert load_net(task_of(other), pack_net(task_of(other).model(), task_of(other).model()))


def quantized_accuracy(spec: JobSpec, net: nn.Module, folder: Path) -> float:
    """By ONNX Runtime's own static quantization, calibrated on the training split."""
    task = task_of(spec)
    splits: Any = task.splits()
    inputs = splits.train.tensors[0].numpy()
    exported = export(net, task.signature, inputs[:64], folder / "fp32.onnx")
    quant_pre_process(str(exported.path), str(folder / "pre.onnx"))

    class Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter([inputs[i : i + 64] for i in range(0, 512, 64)])

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": batch}

    ort_quantization.quantize_static(
        str(folder / "pre.onnx"),
        str(folder / "int8.onnx"),
        Reader(),
        quant_format=ort_quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=ort_quantization.QuantType.QUInt8,
        weight_type=ort_quantization.QuantType.QInt8,
    )
    x, y = splits.validation.tensors
    answers = infer(open_session(folder / "int8.onnx"), x.numpy()).argmax(1)
    return float(np.mean(answers == y.numpy()))


def test_quantization_in_the_loop_saves_a_net_that_plain_quantization_ruins(
    checkpoint: bytes, tmp_path: Path
) -> None:
    spec = spec_of(qat_epochs=4)
    task = task_of(spec)
    # The same net in float; but every eighth channel is a thousand times the others.
    net: Any = trained_net(task, checkpoint)
    with torch.no_grad():
        net.features[1].weight[::8] *= 1000
        net.features[1].bias[::8] *= 1000
        net.features[3].weight[:, ::8] /= 1000
    fragile = pack(net, task.optimizer(net), History(), "0" * 64)
    assert accuracy(spec, net) > 0.95
    plain = quantized_accuracy(spec, net, tmp_path)

    found = train_quantized(QatOrder(spec, fragile))

    saved = quantized_accuracy(spec, load_net(task, found.net), tmp_path)
    assert plain < 0.6
    assert saved > plain + 0.2
    # What the loop simulates is what the quantized file then does.
    assert saved == pytest.approx(found.validation_accuracy, abs=0.1)
    assert found.passes[0].parameters["weight_bits"] == 8


@pytest.mark.parametrize("name", ["residual", "mobile", "attention", "series", "dense"])
def test_a_rounded_net_is_plain_again_afterwards(name: str) -> None:
    net, x = made(name)
    names, kept = {n for n, _ in net.named_parameters()}, copy.deepcopy(net.state_dict())
    with torch.no_grad():
        plain = net(x)
        with rounded(net):
            near = net(x)
        with rounded(net, weight_bits=2):
            far = net(x)
        again = net(x)

    assert torch.equal(plain, again)
    assert {n for n, _ in net.named_parameters()} == names
    assert all(torch.equal(value, kept[key]) for key, value in net.state_dict().items())
    assert 0 < float((near - plain).norm()) < float((far - plain).norm())


def test_gradients_pass_through_the_rounding_and_norms_stand_still() -> None:
    net, x = made("residual")
    mean = net.get_submodule("body.1").running_mean.clone()
    net.train()
    with rounded(net):
        net(x).sum().backward()

    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert torch.equal(net.get_submodule("body.1").running_mean, mean)


def test_a_net_without_weights_cannot_be_rounded() -> None:
    with pytest.raises(UsageError, match="no convolution"), rounded(nn.ReLU()):
        pass


def test_the_archive_gives_what_torch_gives_and_names_no_path(
    checkpoint: bytes, tmp_path: Path
) -> None:
    spec = spec_of()
    net = trained_net(task_of(spec), checkpoint)
    splits: Any = task_of(spec).splits()
    samples = splits.validation.tensors[0].numpy()[:32]

    made_file = formats.make("torch-export", net, samples, tmp_path)

    assert made_file.samples == 32
    assert made_file.parity_max_abs < 1e-5
    program = torch.export.load(made_file.path)
    one = program.module()(torch.from_numpy(samples[:1]))
    assert one.shape == (1, 10)
    assert b"/work" not in made_file.path.read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in made_file.path.read_bytes()


def test_parity_that_fails_is_said(
    checkpoint: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = trained_net(task_of(spec_of()), checkpoint)
    samples = np.zeros((2, 1, 8, 8), np.uint8)
    monkeypatch.setitem(
        formats._WAYS,
        "torch-export",
        (lambda *_: b"x", lambda _: lambda x: np.full((len(x), 10), np.nan)),
    )

    with pytest.raises(JobFailed, match="differ by nan") as failure:
        formats.make("torch-export", net, samples, tmp_path)
    assert failure.value.cause == "parity"


@pytest.mark.skipif(
    importlib.util.find_spec("litert_torch") is not None, reason="litert-torch is installed"
)
def test_litert_that_is_not_installed_is_refused_before_training() -> None:
    formats.require_formats(("torch-export",))
    with pytest.raises(UsageError, match=r"xdsl 0\.28\.0.*typing-extensions"):
        formats.require_formats(("litert",))


@pytest.mark.skipif(
    importlib.util.find_spec("litert_torch") is None, reason="litert-torch is not installed"
)
def test_litert_gives_what_torch_gives(checkpoint: bytes, tmp_path: Path) -> None:
    net = trained_net(task_of(spec_of()), checkpoint)
    splits: Any = task_of(spec_of()).splits()

    made_file = formats.make("litert", net, splits.validation.tensors[0].numpy()[:16], tmp_path)

    assert made_file.parity_max_abs < 1e-5
