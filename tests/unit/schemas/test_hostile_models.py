"""What the guard says of files that mean harm, and how long it takes for it."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from schemas.onnx_guard import UnsafeModelError, check_model
from tests.fakes.hostile_onnx import (
    COUNTLESS,
    FLOAT,
    GUARDED,
    RUNNING,
    YES,
    calling,
    constant,
    function,
    loop,
    model,
    node,
    plain,
)


@pytest.mark.parametrize("case", [*GUARDED, COUNTLESS], ids=lambda case: case.name)
def test_a_hostile_file_is_refused_with_the_reason(case):
    data = case.build()
    began = time.process_time()
    with pytest.raises(UnsafeModelError, match=case.says) as refused:
        check_model(data)
    assert time.process_time() - began < 20
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("case", RUNNING, ids=lambda case: case.name)
def test_what_only_running_shows_passes_the_guard(case):
    check_model(case.build())


def test_a_name_in_a_reason_cannot_play_tricks_on_a_terminal():
    data = model([node("\x1b[2J\nall is well" + "x" * 500, ["x"], ["y"])])
    with pytest.raises(UnsafeModelError) as refused:
        check_model(data)
    said = str(refused.value)
    assert said.isprintable()
    assert len(said) < 200


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(plain(), id="a product"),
        pytest.param(loop(trips=10, body_cond="true"), id="a short loop"),
        pytest.param(loop(trips=2**62, body_cond="computed"), id="a while loop of torch"),
        pytest.param(calling([function("a", ["b", "b"]), function("b", [])], "a"), id="functions"),
        pytest.param(
            model(
                [node("QGemm", ["x"], ["y"], domain="com.microsoft")],
                opsets=[("", 20), ("com.microsoft", 1), ("com.microsoft.nchwc", 1)],
            ),
            id="quantized operators, and domains that tools declare",
        ),
        pytest.param(
            model([node("Expand", ["x", "shape"], ["y"])], [constant("shape", [1, 4])]),
            id="a small shape",
        ),
        pytest.param(
            model([node("Range", ["a", "b", "c"], ["y"])],
                  [constant("a", 10), constant("b", 0), constant("c", -1)]),
            id="a range downwards",
        ),
    ],
)  # fmt: skip
def test_an_honest_file_passes(data):
    facts = check_model(data)
    assert facts.opset == 20
    assert facts.nodes >= 1


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.float16, np.int64, np.int8, np.uint16, np.bool_]
)
@pytest.mark.parametrize("raw", [True, False])
def test_tensors_of_every_kind_have_the_bytes_that_they_promise(dtype, raw):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    data = values.tobytes() if raw else values.ravel()
    tensor = helper.make_tensor("w", kind, values.shape, data, raw=raw)
    made = [node("Identity", ["x"], ["y"])]
    check_model(model(made, [tensor]))
    tensor.dims[0] = 3
    with pytest.raises(UnsafeModelError, match=r"'w' of shape \[3, 3\] needs"):
        check_model(model(made, [tensor]))


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "FLOAT8E4M3FN", "BFLOAT16", "COMPLEX64"])
def test_tensors_of_packed_and_rare_kinds_too(kind):
    number = getattr(onnx.TensorProto, kind)
    values = [1 + 2j] * 5 if kind == "COMPLEX64" else [1] * 5
    tensor = helper.make_tensor("w", number, [5], values)
    check_model(model([node("Identity", ["x"], ["y"])], [tensor]))


def test_strings_are_counted():
    tensor = helper.make_tensor("w", onnx.TensorProto.STRING, [2], [b"a", b"b"])
    check_model(model([node("Identity", ["x"], ["y"])], [tensor]))
    tensor.dims[0] = 10**9
    with pytest.raises(UnsafeModelError, match="needs"):
        check_model(model([node("Identity", ["x"], ["y"])], [tensor]))


def test_a_large_file_is_checked_in_passing():
    """100 MB of weights: they are not copied and not walked."""
    weights = numpy_helper.from_array(np.zeros((5000, 5000), np.float32), "w")
    made = model([node("Identity", ["x"], ["y"])], [weights])
    assert len(made) > 100_000_000
    began = time.process_time()
    check_model(made)
    assert time.process_time() - began < 0.5


def test_large_typed_data_is_counted_fast():
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.INT32, dims=[3_000_000])
    tensor.int32_data.extend(range(3_000_000))
    made = model([node("Identity", ["x"], ["y"])], [tensor])
    began = time.process_time()
    check_model(made)
    assert time.process_time() - began < 1


def test_constants_outside_of_a_branch_count_within():
    body = helper.make_graph(
        [node("ConstantOfShape", ["shape"], ["y"])],
        "b",
        [],
        [helper.make_tensor_value_info("y", FLOAT, None)],
    )
    made = model(
        [node("If", ["yes"], ["y"], then_branch=body, else_branch=body)],
        [constant("yes", YES, np.bool_), constant("shape", [2**20, 2**20])],
    )
    with pytest.raises(UnsafeModelError, match="makes a tensor"):
        check_model(made)
