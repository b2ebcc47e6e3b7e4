"""What the local server's desk lets in, and which version answers what waited."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from edge_client.batching import Batcher
from edge_client.errors import FullError, InputError, LateError
from edge_client.server import answer
from edge_client.server.desk import Desk
from edge_client.server.failures import RequestError
from edge_client.server.limits import Limits
from edge_client.server.request import Ask, Posted, Wanted, read_ask
from edge_client.server.served import Served
from schemas.ops import Decode, Resize, TopK
from schemas.signature import Signature, TensorSpec
from tests.fakes.edge_models import linear_onnx, loaded
from tests.fakes.edge_serving import Models, echo, packaged

SECONDS = 10


def colours(version: int, mode: str):
    """uint8 [n, 2, 2, channels] → [n, 3], from pictures decoded as ``mode`` says."""
    planes = {"L": 1, "RGB": 3}[mode]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
            helper.make_node("Add", ["m", "k"], ["y"]),
        ],
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 2, 2, planes])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("k", TensorProto.FLOAT, [3], [1000.0 * version] * 3),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="uint8", shape=(-1, 2, 2, planes)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(-1, 3)),),
    )
    return packaged(
        model.SerializeToString(),
        signature,
        name="colours",
        version=version,
        preprocess=(Decode(mode=mode), Resize(height=2, width=2)),
        postprocess=(TopK(k=version),),
    )


@pytest.fixture
def make():
    made = []

    def make_one(*models, **limits):
        runtime = Models(*models)
        batcher = Batcher(runtime)
        desk = Desk(runtime, batcher, version="1", limits=Limits(**limits))
        made.append((desk, batcher, runtime))
        return desk, runtime

    yield make_one
    for desk, batcher, runtime in made:
        if runtime.hold is not None:
            runtime.hold.set()
        desk.close()
        batcher.close()


class Told:
    """Outcomes that came later."""

    def __init__(self) -> None:
        self.came, self.outcomes = threading.Event(), []

    def __call__(self, outcome) -> None:
        self.outcomes.append(outcome)
        self.came.set()

    def one(self):
        assert self.came.wait(SECONDS)
        return self.outcomes[0]


def ask(model: str, value, **more) -> Ask:
    return Ask(model=model, version="", began=time.perf_counter(), inputs={"x": value}, **more)


def red() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    return file.getvalue()


def test_a_picture_that_was_prepared_for_a_version_is_answered_by_it(make, monkeypatch) -> None:
    desk, runtime = make(colours(1, "RGB"))
    told, prepare = Told(), desk._steps.prepare

    def prepare_and_swap(*given):
        inputs = prepare(*given)
        runtime.swap("colours", colours(2, "L"))  # takes other inputs, and tells two classes
        return inputs

    monkeypatch.setattr(desk._steps, "prepare", prepare_and_swap)
    assert desk.infer(ask("colours", [red()], finish=True), told) is None
    served = told.one()
    assert isinstance(served, Served)
    assert served.slot.version == 1
    np.testing.assert_array_equal(served.outputs["y"], [[1255, 1000, 1000]])
    assert len(served.records) == 1
    assert served.records[0].count(b"probability") == 2  # of the best, and of one in top


def test_what_waits_is_counted_as_large_as_it_is_here(make) -> None:
    desk, runtime = make(colours(1, "RGB"), held=100_000)
    runtime.hold = threading.Event()
    texts = [b"x" * 100] * 400  # 40 kB, and as much for the objects
    first, second = Told(), Told()
    asked = ask("colours", texts)
    assert desk.infer(asked, first) is None
    refused = desk.infer(ask("colours", texts), second)
    assert isinstance(refused, FullError)
    assert runtime.counted["shed", "colours"] == 1
    desk.heard(asked, first.one())
    again = ask("colours", texts)
    assert desk.infer(again, second) is None
    desk.heard(again, second.one())
    assert desk._held == 0
    alone = desk.infer(ask("colours", [b""] * 3000), Told())  # waiting would not help it
    assert isinstance(alone, RequestError)
    assert alone.kind.status == 413
    empty = [ask("colours", []) for _ in range(30)]
    assert any(isinstance(desk.infer(one, Told()), FullError) for one in empty)


def test_very_many_samples_are_refused_before_they_fill_the_memory(make) -> None:
    desk, runtime = make(echo("float32", name="echo"), held=120_000)
    assert desk.infer(ask("echo", np.zeros((9_000, 3), np.float32)), Told()) is None
    outcome = desk.infer(ask("echo", np.zeros((10_001, 3), np.float32)), Told())
    assert isinstance(outcome, InputError)
    assert "10001 samples; 10000 may be at once" in str(outcome)
    assert runtime.counted["rejected", "echo"] == 1


def test_records_and_classes_as_text_are_bounded(make, monkeypatch) -> None:
    desk, _ = make(loaded(linear_onnx()))
    monkeypatch.setattr("edge_client.server.preparing.MAX_TEXTS", 9)
    told, more = Told(), Told()
    desk.infer(ask("digits", np.ones((9, 4), np.float32), finish=True), told)
    desk.infer(ask("digits", np.ones((10, 4), np.float32), finish=True), more)
    assert len(told.one().records) == 9
    assert isinstance(more.one(), InputError)
    monkeypatch.setattr(answer, "MAX_TEXTS", 26)
    wanted = Wanted("probabilities", classes=3)
    with pytest.raises(RequestError, match="the best 3 of 9 samples are too many"):
        answer.texts_of(wanted, told.one())


def test_one_large_sample_is_not_run_where_requests_are_read(make) -> None:
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "w"]) for name in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "any", sides[:1], sides[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    specs = [TensorSpec(name=name, dtype="float32", shape=(-1, -1)) for name in "xy"]
    signature = Signature(inputs=tuple(specs[:1]), outputs=tuple(specs[1:]))
    desk, _ = make(packaged(model.SerializeToString(), signature, name="any"))
    for _ in range(5):
        desk._pace.ran(desk.find("any", "").slot.sha256, 3, 20e-6)
    assert isinstance(desk.infer(ask("any", np.zeros((1, 3), np.float32)), Told()), Served)
    large, told = ask("any", np.zeros((1, 3000), np.float32)), Told()
    assert desk.infer(large, told) is None
    desk.heard(large, told.one())


def test_a_picture_whose_time_has_passed_is_not_decoded(make, monkeypatch) -> None:
    desk, runtime = make(colours(1, "RGB"))
    monkeypatch.setattr(desk._steps, "prepare", lambda *_: pytest.fail("it was decoded"))
    told = Told()
    assert desk.infer(ask("colours", [red()], deadline=1e-9), told) is None
    assert isinstance(told.one(), LateError)
    assert runtime.counted["shed", "colours"] == 1


@pytest.mark.parametrize("shape", [[0, 2**62], [0, 2**70], [0, 2**40, 2**40], [2**63], [0], [1, 0]])
@pytest.mark.parametrize("data", ['"data": []', '"parameters": {"binary_data_size": 0}'])
def test_shapes_that_cannot_be_are_the_clients_mistake(shape, data) -> None:
    body = f'{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": {shape}, {data}}}]}}'
    with pytest.raises(RequestError, match="has shape") as found:
        read_ask(Posted("m", "", body.encode(), 0.0, len(body)))
    assert found.value.kind.status == 400
