"""The search on real nets: one that quantizes badly, a killed one, pruned and trained ones."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from schemas.jobfile import JobSpec
from schemas.ops import TopK
from schemas.optimize import Optimize
from schemas.paired import Outcomes, compare
from workers.errors import UsageError
from workers.inspection.dataset import profile_splits
from workers.inspection.stream import Stream
from workers.optimization.cache import Cache, key_of
from workers.optimization.executor import LocalExecutor
from workers.optimization.exporting.export import export
from workers.optimization.pipeline import Training, build
from workers.optimization.point import Point
from workers.optimization.quantizing.layers import layers_of, wants_dynamic
from workers.optimization.searching import make, search
from workers.optimization.searching.search import Data, optimize_graph
from workers.optimization.session import infer, open_session
from workers.recipes.digits import Digits
from workers.task import load_task
from workers.training.local import train_here

DIGITS = "workers.recipes.digits:Digits"
CONFIG = {"width": 0.5, "batch_size": 64, "lr": 0.003}
HUGE = 3000.0


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def task() -> Digits:
    return load_task(DIGITS, CONFIG, 0)


def spec_of(**optimize) -> JobSpec:
    return JobSpec(
        name="digits",
        task=DIGITS,
        config=CONFIG,
        stop={"max_epochs": 6, "require_target": False},
        optimize=optimize,
    )


@pytest.fixture(scope="module")
def weights(task):
    return train_here(task, spec_of())[0]


@pytest.fixture(scope="module")
def data(task) -> Data:
    splits = task.splits()
    validation = Stream(task, splits.validation, "validation")
    train, test = Stream(task, splits.train, "train"), Stream(task, splits.test, "test")
    return Data(train, validation, test, validation.head(64).x)


def damaged(net: nn.Module) -> nn.Module:
    """The same function, by way of one channel of a huge range: INT8 has 255 steps for it."""
    with torch.no_grad():
        norm, after = net.features[1], net.features[3]
        norm.weight[0] *= HUGE
        norm.bias[0] *= HUGE
        after.weight[:, 0] /= HUGE
    return net


@pytest.fixture(scope="module")
def graphs(task, weights, data, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    found = {}
    for name, change in (("healthy", lambda net: net), ("damaged", damaged)):
        net = task.model()
        net.load_state_dict(weights)
        found[name] = folder / f"{name}.onnx"
        export(change(net).eval(), task.signature, data.head, found[name], tolerance=1e-3)
    return found


def test_a_damaged_layer_stays_in_float_and_the_rest_is_quantized(
    graphs, data, tmp_path: Path, caplog
) -> None:
    with caplog.at_level(logging.INFO, "workers"):
        found = optimize_graph(graphs["damaged"], data, Optimize(), folder=tmp_path)
    plain = found.known[Point(0.0, "int8", "u8s8-7bit")]
    assert plain.paired.drop > 0.5, "INT8 alone ruins this net"
    kept = [k for k in found.selection.kept if k.point.quantized]
    assert kept, found.selection.rejected
    floats = kept[0].point.float_nodes
    assert kept[0].paired.high <= 0.02
    assert any("Conv" in name for name in floats)
    graph = onnx.load(tmp_path / f"model-{kept[0].point.id}.onnx").graph
    quantized = {i.name for i in graph.initializer if i.data_type == onnx.TensorProto.INT8}
    assert quantized, "what does no damage is in INT8"
    by_output = {out: node for node in graph.node for out in node.output}
    for node in graph.node:
        if node.name in floats and node.op_type == "Conv":
            source = by_output.get(node.input[1])
            assert source is None or source.op_type != "DequantizeLinear"
    told = caplog.text
    assert "looking for the layers that do the damage" in told
    assert f"kept {kept[0].point.id}: accuracy" in told
    assert "rejected int8: accuracy on validation fell by" in told


def test_a_healthy_net_is_quantized_without_a_scan(graphs, data, tmp_path, monkeypatch) -> None:
    def scan(*_, **__):
        msg = "nothing needs a scan here"
        raise AssertionError(msg)

    monkeypatch.setattr(make, "scan", scan)
    found = optimize_graph(graphs["healthy"], data, Optimize(), folder=tmp_path)
    assert {p.id for p in found.trials} >= {"fp32", "int8"}
    assert all(p.precision == "fp32" or p.quantized for p in found.trials)
    reference = found.trials[Point()].scored.outcomes
    for known in found.selection.kept:
        trial = found.trials[known.point]
        again = infer(open_session(trial.path), data.validation.take(range(355)).x).argmax(1)
        right = (again == data.validation.take(range(355)).y).mean()
        assert known.accuracy == pytest.approx(right)
        assert known.paired == compare(reference, trial.scored.outcomes, 0.95)


def test_a_killed_search_repeats_no_trial(graphs, data, tmp_path, monkeypatch) -> None:
    """Whatever the trial at which it was killed, the next attempt makes the others only."""

    class Killed(BaseException):
        pass

    made: list[str] = []
    scored: list[Path] = []
    static, score = make.Quantizer.static, search.score

    def counted(self, target, scheme, float_nodes=(), *, only=None):
        if only is None:
            if len(made) == deadline:
                raise Killed
            made.append(f"{scheme} {len(float_nodes)}")
        static(self, target, scheme, float_nodes, only=only)

    def counting(session, stream):
        scored.append(stream.split)
        return score(session, stream)

    monkeypatch.setattr(make.Quantizer, "static", counted)
    monkeypatch.setattr(search, "score", counting)
    cache = Cache(tmp_path / "trials")

    def attempt():
        return optimize_graph(
            graphs["damaged"], data, Optimize(), folder=tmp_path / "out", cache=cache
        )

    deadline = 1
    with pytest.raises(Killed):
        attempt()
    deadline = 2
    with pytest.raises(Killed):
        attempt()
    deadline = 1000
    found = attempt()
    assert len(made) == len(set(made)), "nothing was made twice"
    before, seen = len(made), len(scored)
    again = attempt()
    assert len(made) == before
    assert scored[seen:].count("validation") == 1, "the reference, to see that the samples are same"
    assert again.selection.front == found.selection.front
    assert not list((tmp_path / "trials").glob(".new-*"))


def test_what_decides_a_trial_is_in_its_name() -> None:
    one = key_of("form", net="a", float_nodes=("x", "y"))
    assert one == key_of("form", float_nodes=("x", "y"), net="a")
    for other in (
        key_of("form", net="b", float_nodes=("x", "y")),
        key_of("form", net="a", float_nodes=("y", "x")),
        key_of("cost", net="a", float_nodes=("x", "y")),
    ):
        assert other != one


def test_a_damaged_entry_of_the_cache_is_made_anew(graphs, data, tmp_path) -> None:
    cache = Cache(tmp_path / "trials")
    wish = Optimize(max_trials=2)
    optimize_graph(graphs["healthy"], data, wish, folder=tmp_path / "a", cache=cache)
    for path in (tmp_path / "trials").glob("*/trial.json"):
        path.write_text("{")
    found = optimize_graph(graphs["healthy"], data, wish, folder=tmp_path / "b", cache=cache)
    assert found.known[Point(0.0, "int8", "u8s8-7bit")].failed is None


def test_pruned_nets_a_class_with_little_room_and_other_formats(
    task, weights, tmp_path: Path
) -> None:
    spec = spec_of(
        prune=(0.5,),
        finetune_epochs=2,
        max_accuracy_drop=0.08,
        classes={"camera": {"max_size_mb": 0.02}, "moon": {"max_size_mb": 0.000_1}},
        formats=("torch-export",),
        max_trials=6,
    )
    task.postprocess = (TopK(k=3),)
    profile = profile_splits(task, task.splits(), spec.dataset)
    training = Training(weights, "0" * 64, "c" * 64, 6, parent="digits@3")
    package = build(
        task,
        spec,
        training,
        tmp_path / "p",
        enter=lambda _: None,
        executor=LocalExecutor(),
        cache=tmp_path / "trials",
        profile=profile,
    )
    manifest = package.manifest
    assert manifest.postprocess == (TopK(k=3),)
    assert manifest.lineage.parent == "digits@3"
    assert manifest.budgets["camera"].max_size_mb == 0.02
    assert [e.format for e in manifest.exports] == ["torch-export"]
    state = torch.load(package.folder / manifest.weights.path, weights_only=True)
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in weights.items()}

    pruned = [v for v in manifest.variants if v.pruned > 0]
    assert pruned, manifest.rejected
    small = [v for v in pruned if v.file.size <= 20_000]
    assert small, [(v.id, v.file.size) for v in manifest.variants]
    assert small[0].precision == "int8"
    assert small[0].paired.high <= 0.08
    ends = {p.output_sha256: p for p in manifest.lineage.passes}
    for variant in manifest.variants:
        step, names = ends[variant.file.sha256], []
        while step is not None:
            names.append(step.name)
            step = ends.get(step.input_sha256)
        if variant.pruned and variant.precision == "int8":
            assert names[:2] == ["quantize_static", "quant_pre_process"]
            assert names[2:5] == ["export", "finetune", "prune"]
        for figure in variant.accuracy:
            bits = (package.folder / figure.outcomes.path).read_bytes()
            right = int.from_bytes(bits).bit_count()
            assert Outcomes(figure.n, bits)
            assert right / figure.n == pytest.approx(figure.value)


def test_training_with_rounding_is_the_last_rung(task, weights, tmp_path, monkeypatch) -> None:
    """Nothing quantized is accurate enough, so the net is trained with it."""
    asked = []
    monkeypatch.setattr(make, "scan", lambda *_, **__: ())
    from workers.optimization.searching import nets

    train = nets.train_quantized

    def counted(order):
        asked.append(order)
        return train(order)

    monkeypatch.setattr(nets, "train_quantized", counted)
    static = make.Quantizer.static

    def poor(self, target, scheme, float_nodes=(), *, only=None):
        if not asked:
            msg = "no kernel"
            raise RuntimeError(msg)
        static(self, target, scheme, float_nodes, only=only)

    monkeypatch.setattr(make.Quantizer, "static", poor)
    spec = spec_of(qat_epochs=1, max_accuracy_drop=0.05)
    training = Training(weights, "0" * 64, "c" * 64, 6)
    manifest = build(task, spec, training, tmp_path, enter=lambda _: None).manifest
    assert len(asked) == 1
    assert asked[0].weight_bits in {7, 8}
    qat = manifest.variant("int8-qat")
    assert qat is not None, manifest.rejected
    assert qat.scheme == "qat"
    assert "qat" in [p.name for p in manifest.lineage.passes]


def test_operations_of_a_task_are_checked(tmp_path, monkeypatch) -> None:
    (tmp_path / "wrong_operations.py").write_text(
        "from workers.recipes.digits import Digits\n"
        "class Wrong(Digits):\n    preprocess = ({'op': 'shear'},)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="preprocess is no tuple of operations"):
        load_task("wrong_operations:Wrong", {}, 0)


def test_layers_hold_what_follows_one_operator_alone() -> None:
    node = onnx.helper.make_node
    conv = node("Conv", ["x", "w"], ["a"], "conv")
    graph = onnx.helper.make_graph(
        [
            conv,
            node("Relu", ["a"], ["b"], "relu"),
            node("MaxPool", ["b"], ["c"], "pool", kernel_shape=[2, 2]),
            node("Conv", ["c", "w"], ["d"], "second"),
            node("Add", ["c", "d"], ["e"], "sum"),
            node("Softmax", ["e"], ["f"], "softmax"),
        ],
        "g",
        [],
        [onnx.helper.make_tensor_value_info("f", 1, [1])],
        [onnx.helper.make_tensor("w", 1, [1], [0.0])],
    )
    assert [layer.nodes for layer in layers_of(graph)] == [
        ("conv", "relu", "pool"),
        ("second",),
        ("sum",),
    ]
    assert not wants_dynamic(graph)
    lstm = onnx.helper.make_graph([node("LSTM", ["x", "w", "r"], ["y"], "l")], "g", [], [])
    assert wants_dynamic(lstm)
