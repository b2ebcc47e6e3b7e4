"""The batcher with real models: what runs together, what is turned away, what is answered."""

from __future__ import annotations

import itertools
import queue
import threading
from typing import NamedTuple

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_client.batching import Batcher
from edge_client.errors import (
    ClosedError,
    FullError,
    InferenceError,
    InputError,
    LateError,
    NoModelError,
)
from edge_client.graph_sides import apart
from edge_client.inference import Prediction
from edge_client.queueing import BatchSettings
from edge_client.runtime import Runtime
from edge_client.telemetry import Windows
from schemas.signature import Signature, TensorSpec
from tests.fakes.edge_models import linear_onnx, loaded, run_onnx, samples
from tests.fakes.edge_serving import packaged

SECONDS = 10


class Held:
    """A runtime whose runs wait at a gate, and that notes what it was asked."""

    def __init__(self, *, open_: bool = True) -> None:
        self.serving = {"digits": loaded(linear_onnx(0))}
        self.gate, self.entered = threading.Event(), queue.Queue()
        self.sizes, self.failed, self.counts = [], 0, {"shed": 0, "rejected": 0}
        if open_:
            self.gate.set()

    def loaded(self, model=None):
        return self.serving.get(model or "digits")

    def infer(self, one, feed, *, n, queue_seconds=0.0, runs=1, tried=True):
        assert queue_seconds >= 0
        assert runs == 1
        self.entered.put(n)
        assert self.gate.wait(SECONDS)
        assert one.model.size(feed) == n
        self.sizes.append(n)
        try:
            raw = one.model.run(feed)
            one.model.finite(raw)
        except InferenceError:
            self.failed += n if tried else 0
            raise
        return raw

    def rejected(self, one, n=1):
        assert one.slot.model == "digits"
        self.counts["rejected"] += n

    def shed(self, one, n=1):
        assert one.slot.model == "digits"
        self.counts["shed"] += n


@pytest.fixture
def make():
    made = []

    def make_one(runtime, clock=None, **settings):
        more = {} if clock is None else {"clock": clock}
        made.append(Batcher(runtime, BatchSettings(**settings), **more))
        return made[-1]

    yield make_one
    for batcher in made:
        batcher._runtime.gate.set()
        batcher.close()


class Answers:
    """Answers in the order in which they came, with the number of the request."""

    def __init__(self) -> None:
        self.came = queue.Queue()

    def of(self, number):
        return lambda answer: self.came.put((number, answer))

    def take(self, n):
        found = dict(self.came.get(timeout=SECONDS) for _ in range(n))
        assert self.came.empty()
        return found


def occupy(batcher, runtime, answers):
    """A request that is running: all that come after it must wait."""
    batcher.submit(samples(1), done=answers.of("first"))
    assert runtime.entered.get(timeout=SECONDS) == 1


def test_what_queued_during_a_run_goes_together_and_each_gets_its_own_rows(make) -> None:
    runtime, answers = Held(open_=False), Answers()
    batcher = make(runtime, max_batch=8)
    occupy(batcher, runtime, answers)
    x = samples(9, seed=5)
    for i, (start, end) in enumerate([(0, 2), (2, 3), (3, 7), (7, 9)]):
        batcher.submit(x[start:end], done=answers.of(i))
    assert batcher.waiting("digits") == 4
    runtime.gate.set()
    found = answers.take(5)
    assert runtime.sizes == [1, 7, 2]  # the fourth would have made nine
    y = run_onnx(linear_onnx(0), x)
    for i, (start, end) in enumerate([(0, 2), (2, 3), (3, 7), (7, 9)]):
        assert found[i].n == end - start
        assert found[i].slot == runtime.loaded().slot
        np.testing.assert_allclose(found[i].outputs["probabilities"], y[start:end], rtol=1e-5)


def test_one_that_spoils_a_run_fails_alone(make) -> None:
    runtime, answers = Held(open_=False), Answers()
    runtime.serving["digits"] = loaded(linear_onnx(0, log_input=True))
    batcher = make(runtime)
    occupy(batcher, runtime, answers)
    for i in range(6):
        batcher.submit(samples(1, seed=i) * (-1 if i == 4 else 1), done=answers.of(i))
    runtime.gate.set()
    found = answers.take(7)
    assert [i for i in range(6) if isinstance(found[i], InferenceError)] == [4]
    assert runtime.failed == 1  # not the six that ran with it
    assert runtime.sizes[1] == 6


def test_a_swap_in_between_mixes_nothing(make) -> None:
    runtime, answers = Held(open_=False), Answers()
    old, new = runtime.loaded(), loaded(linear_onnx(7), version=2)
    batcher = make(runtime)
    occupy(batcher, runtime, answers)
    x = samples(4)
    batcher.submit(x[:1], done=answers.of(0))
    batcher.submit(x[1:2], done=answers.of(1))
    runtime.serving["digits"] = new
    batcher.submit(x[2:3], done=answers.of(2))
    batcher.submit(x[3:], done=answers.of(3))
    runtime.gate.set()
    found = answers.take(5)
    assert runtime.sizes == [1, 2, 2]
    for i in range(4):
        assert found[i].slot == (old if i < 2 else new).slot
        want = run_onnx(linear_onnx(0 if i < 2 else 7), x[i : i + 1])
        np.testing.assert_allclose(found[i].outputs["probabilities"], want, rtol=1e-5)


def test_the_highest_priority_goes_first(make) -> None:
    runtime, answers = Held(open_=False), Answers()
    batcher = make(runtime, clock=lambda: 0.0, max_batch=1)
    occupy(batcher, runtime, answers)
    for priority in (0, 9, 4):
        batcher.submit(samples(1), priority=priority, done=answers.of(priority))
    runtime.gate.set()
    order = [answers.came.get(timeout=SECONDS)[0] for _ in range(4)]
    assert order == ["first", 9, 4, 0]


def test_who_is_late_is_turned_away_and_counted(make) -> None:
    runtime, answers, now = Held(open_=False), Answers(), [100.0]
    batcher = make(runtime, clock=lambda: now[0])
    occupy(batcher, runtime, answers)
    batcher.submit(samples(3), deadline=101.0, done=answers.of("late"))
    batcher.submit(samples(2), deadline=103.0, done=answers.of("in time"))
    now[0] = 102.0
    with pytest.raises(LateError):
        batcher.submit(samples(1), deadline=102.0, done=answers.of("too late to ask"))
    runtime.gate.set()
    found = answers.take(3)
    assert isinstance(found["late"], LateError)
    assert isinstance(found["in time"], Prediction)
    assert runtime.counts["shed"] == 4
    assert runtime.sizes == [1, 2]


def test_no_more_may_wait_than_fit(make) -> None:
    runtime, answers = Held(open_=False), Answers()
    batcher = make(runtime, max_requests=3, max_bytes=100)  # a sample has 16
    occupy(batcher, runtime, answers)
    batcher.submit(samples(5), done=answers.of(0))
    with pytest.raises(FullError, match="80 bytes wait already"):
        batcher.submit(samples(2), done=answers.of(1))
    batcher.submit(samples(1), done=answers.of(2))
    with pytest.raises(InputError, match="112 bytes; 100 may"):
        batcher.submit(samples(7), done=answers.of(3))
    assert runtime.counts == {"shed": 2, "rejected": 1}
    runtime.gate.set()
    answers.take(3)
    batcher.submit(samples(6), done=answers.of(4))
    answers.take(1)


def test_what_does_not_fit_is_refused_at_once(make) -> None:
    runtime = Held()
    batcher = make(runtime)
    with pytest.raises(InputError, match="'x'"):
        batcher.submit(np.zeros((1, 5), np.float32), done=print)
    with pytest.raises(InputError, match="priority is 0 to 9, not 10"):
        batcher.submit(samples(1), priority=10, done=print)
    with pytest.raises(NoModelError):
        batcher.submit(samples(1), model="other", done=print)
    assert runtime.counts["rejected"] == 2
    assert runtime.sizes == []


def test_closing_answers_everything(make) -> None:
    runtime, answers = Held(open_=False), Answers()
    batcher = make(runtime)
    occupy(batcher, runtime, answers)
    for i in range(3):
        batcher.submit(samples(2), done=answers.of(i))
    closing = threading.Thread(target=batcher.close)
    closing.start()
    turned_away = dict(answers.came.get(timeout=SECONDS) for _ in range(3))
    assert all(isinstance(turned_away[i], ClosedError) for i in range(3))
    runtime.gate.set()
    closing.join(SECONDS)
    assert isinstance(answers.take(1)["first"], Prediction)
    with pytest.raises(ClosedError):
        batcher.submit(samples(1), done=print)
    with pytest.raises(ClosedError):
        batcher.predict(samples(1))
    assert runtime.counts["shed"] == 8


def test_a_model_without_a_batch_in_front_runs_one_by_one(make, monkeypatch) -> None:
    runtime, answers = Held(open_=False), Answers()
    monkeypatch.setattr("edge_client.batching_desk.can_merge", lambda _model: False)
    batcher = make(runtime)
    occupy(batcher, runtime, answers)
    for i in range(3):
        batcher.submit(samples(1), done=answers.of(i))
    runtime.gate.set()
    answers.take(4)
    assert runtime.sizes == [1, 1, 1, 1]


def pairs_onnx() -> bytes:
    """[n, 4] → [n, n]: the products of all samples, where a neighbour's must not be seen."""
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "t"], ["y"]),
        ],
        "pairs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "n"])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return made.SerializeToString()


PAIRS = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=(-1, -1)),),
)


def test_samples_that_see_each_other_are_not_mixed_with_other_requests(make) -> None:
    runtime, answers = Held(open_=False), Answers()
    runtime.serving["digits"] = packaged(pairs_onnx(), PAIRS, name="digits")
    batcher = make(runtime)
    occupy(batcher, runtime, answers)
    asked = [samples(2, seed=i) for i in range(3)]
    for i, x in enumerate(asked):
        batcher.submit(x, done=answers.of(i))
    runtime.gate.set()
    found = answers.take(4)
    for i, x in enumerate(asked):
        np.testing.assert_allclose(found[i].outputs["y"], x @ x.T, rtol=1e-5)


@pytest.mark.parametrize("ask", ["submit", "predict"])
@pytest.mark.parametrize(("step", "sizes"), [(0.1, [8, 8, 4]), (0.0, [8, 12])])
def test_a_large_request_is_several_runs_that_end(make, ask, step, sizes) -> None:
    runtime, answers, looks = Held(), Answers(), itertools.count()
    batcher = make(runtime, lambda: step * next(looks), max_batch=8)
    x = samples(20)
    if ask == "predict":
        found = batcher.predict(x)
    else:
        batcher.submit(x, done=answers.of(0))
        found = answers.take(1)[0]
    assert runtime.sizes == sizes
    assert found.n == 20
    np.testing.assert_allclose(found.outputs["probabilities"], run_onnx(linear_onnx(0), x), 1e-5)


def test_a_large_request_whose_samples_see_each_other_is_one_run(make) -> None:
    runtime = Held()
    runtime.serving["digits"] = packaged(pairs_onnx(), PAIRS, name="digits")
    x = samples(20)
    np.testing.assert_allclose(make(runtime, max_batch=8).predict(x).outputs["y"], x @ x.T, 1e-5)
    assert runtime.sizes == [20]


class Side(NamedTuple):
    name: str
    shape: list[int | str | None]


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ([["n", 4]], [["n", 3]], True),
        ([[None, 4]], [[None, 3]], True),  # without names
        ([["n", 4]], [[None, 3], ["n"]], True),
        ([["n", 3, "h", "w"]], [["n", 5, "h", "w"]], True),
        ([["n", 3, "h", "w"]], [["n", 5, "boxes"]], False),
        ([["n", 4]], [["found", 7]], False),
        ([["n", 4], ["n", 2]], [["n", 3]], True),
        ([["n", 4], ["m", 4]], [["n", "m"]], False),
        ([[None, 4], [None, 4]], [[None, 3]], False),
        ([[None, 4]], [[None, None]], False),
        ([[8, 4]], [[8, 3]], False),
        ([[]], [["n"]], False),
    ],
)
def test_what_comes_apart_again_is_what_the_graph_says(inputs, outputs, expected) -> None:
    sides = [[Side("", shape) for shape in one] for one in (inputs, outputs)]
    assert apart(*sides) is expected


def test_a_caller_whose_function_fails_stops_nobody(make) -> None:
    runtime, answers = Held(), Answers()
    batcher = make(runtime)

    def fail(_answer):
        raise ValueError

    batcher.submit(samples(1), done=fail)
    batcher.submit(samples(1), done=answers.of(0))
    answers.take(1)


@pytest.mark.parametrize("short", [0.0, 1.0], ids=["handed over", "run by the caller"])
def test_many_threads_each_get_their_own_answer(make, short) -> None:
    runtime = Held()
    batcher = make(runtime, max_batch=16, workers=2, short=short)
    x = samples(400, seed=3)
    y = run_onnx(linear_onnx(0), x)
    wrong = []

    def ask(rows):
        for row in rows:
            answer = batcher.predict(x[row : row + 1])
            if not np.allclose(answer.outputs["probabilities"], y[row : row + 1], rtol=1e-4):
                wrong.append(row)

    threads = [threading.Thread(target=ask, args=(range(i, 400, 8),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert wrong == []
    assert sum(runtime.sizes) == 400


def test_the_caller_of_predict_hears_why_not(make) -> None:
    runtime = Held()
    runtime.serving["digits"] = loaded(linear_onnx(0, log_input=True))
    batcher = make(runtime)
    with pytest.raises(InferenceError, match="NaN"):
        batcher.predict(-samples(1))
    assert batcher.predict(samples(1)).n == 1
    assert threading.active_count() < 20


def test_the_real_runtime_counts_each_sample_once() -> None:
    windows = Windows()
    runtime = Runtime(windows)
    one = loaded(linear_onnx(0, log_input=True))
    runtime.swap("digits", one)
    batcher, answers = Batcher(runtime, BatchSettings(short=0.0)), Answers()
    try:
        for i in range(60):
            batcher.submit(samples(2, seed=i) * (-1 if i == 17 else 1), done=answers.of(i))
        with pytest.raises(InputError):
            batcher.submit(np.zeros((1, 9), np.float32), done=print)
        found = answers.take(60)
    finally:
        batcher.close()
    assert [i for i in found if isinstance(found[i], InferenceError)] == [17]
    (cut,) = windows.cut()
    assert (cut.tally.n, cut.tally.errors, cut.tally.rejected) == (120, 2, 1)
    assert runtime.counts(one.slot) == (120, 2)
