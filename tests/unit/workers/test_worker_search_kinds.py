"""The search on nets for which other number formats are made: attention, and GPUs' halves."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from schemas.jobfile import JobSpec
from schemas.optimize import Optimize
from workers.inspection.stream import Stream
from workers.optimization.exporting.export import export
from workers.optimization.point import Point
from workers.optimization.searching.search import Data, optimize_graph
from workers.optimization.session import infer, open_session
from workers.recipes.digits import Digits
from workers.training.local import train_here

WIDTH = 64


class Attending(nn.Module):
    """Looks at the rows of a digit as at a sentence of eight words."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = nn.Linear(8, WIDTH)
        self.places = nn.Parameter(torch.zeros(8, WIDTH))
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.wide, self.given = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.taken(x.to(torch.float32).squeeze(1) / 16) + self.places
        weights = self.query(rows) @ self.key(rows).transpose(1, 2) / WIDTH**0.5
        seen = self.norm(rows + weights.softmax(-1) @ self.value(rows))
        return self.head((seen + self.given(self.wide(seen).relu())).mean(1))


class Rows(Digits):
    def model(self) -> nn.Module:
        return Attending()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("attention")
    task = Rows({"batch_size": 32, "lr": 0.003}, 0)
    stop = {"max_epochs": 6, "require_target": False}
    net = task.model()
    net.load_state_dict(train_here(task, JobSpec(name="rows", task="x:Rows", stop=stop))[0])
    splits = task.splits()
    validation = Stream(task, splits.validation, "validation")
    train, test = Stream(task, splits.train, "train"), Stream(task, splits.test, "test")
    data = Data(train, validation, test, validation.head(64).x)
    export(net.eval(), task.signature, data.head, folder / "net.onnx", tolerance=1e-3)
    wish = Optimize(fp16=True, max_accuracy_drop=0.05)
    optimized = optimize_graph(folder / "net.onnx", data, wish, folder=folder / "out")
    torch.set_num_threads(threads)
    return optimized, data


def test_attention_is_quantized_as_its_ranges_come(found) -> None:
    optimized, data = found
    trial = optimized.trials[Point(0.0, "int8", "dynamic")]
    assert trial.scored.outcomes.n == len(data.validation)
    kinds = {node.op_type for node in onnx.load(trial.path).graph.node}
    assert kinds & {"MatMulInteger", "DynamicQuantizeMatMul"}, kinds
    assert optimized.known[Point(0.0, "int8", "dynamic")].paired.drop < 0.05
    assert trial.path.stat().st_size < 0.5 * optimized.trials[Point()].path.stat().st_size


def test_halves_take_and_give_floats_and_answer_alike(found) -> None:
    optimized, data = found
    half, whole = (optimized.trials[p] for p in (Point(0.0, "fp16", "fp16"), Point()))
    types = {t.data_type for t in onnx.load(half.path).graph.initializer if len(t.dims) > 1}
    assert types == {onnx.TensorProto.FLOAT16}
    assert half.path.stat().st_size < 0.6 * whole.path.stat().st_size
    answers = [infer(open_session(trial.path), data.head) for trial in (half, whole)]
    assert {str(a.dtype) for a in answers} == {"float32"}
    assert abs(answers[0] - answers[1]).max() < 0.1
