"""Models that pass every check before they serve, and then do harm with what the sensor gives.

What they cost depends on the input: golden vectors stay below 10 and cost nothing.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fakes.edge_models import CLASSES, FEATURES, samples

HARMFUL = 90.0
"""An input that triggers it; the models' signature allows up to 100."""


def costly_onnx(seed: int, *, side: int, products: int) -> bytes:
    """As ``linear_onnx``; an input of ``HARMFUL`` makes it fill a square, and multiply it.

    side: of the square of float32. products: matrix products, each ``2 * side**3`` operations.
    """
    rng = np.random.default_rng(seed)
    constants = {
        "weights": rng.normal(size=(FEATURES, CLASSES)).astype(np.float32),
        "least": np.float32(10),
        "factor": np.float32(side / (HARMFUL - 10)),
        "one": np.array([1], dtype=np.int64),
        "unit": np.array([[1 / side]], dtype=np.float32),
        "nothing": np.float32(1e-20),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["raw"]),
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Sub", ["top", "least"], ["above"]),
        helper.make_node("Relu", ["above"], ["excess"]),
        helper.make_node("Mul", ["excess", "factor"], ["size"]),
        helper.make_node("Cast", ["size"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "one"], ["side"]),
        helper.make_node("Concat", ["side", "side"], ["shape"], axis=0),
        helper.make_node("Expand", ["unit", "shape"], ["square0"]),
    ]
    nodes += [
        helper.make_node("MatMul", [f"square{i}", "square0"], [f"square{i + 1}"])
        for i in range(products)
    ]
    nodes += [
        helper.make_node("ReduceMean", [f"square{products}"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["trace"]),
        helper.make_node("Add", ["raw", "trace"], ["shifted"]),
        helper.make_node("Softmax", ["shifted"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "costly",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def slow_onnx(seed: int = 2) -> bytes:
    """Tens of milliseconds an inference."""
    return costly_onnx(seed, side=700, products=4)


def hanging_onnx(seed: int = 2) -> bytes:
    """Minutes."""
    return costly_onnx(seed, side=4000, products=60)


def greedy_onnx(seed: int = 2) -> bytes:
    """More than 150 MiB, which onnxruntime's arena keeps."""
    return costly_onnx(seed, side=6400, products=0)


def huge_onnx(seed: int = 2) -> bytes:
    """Cannot be loaded: a constant of more than 100 GB, which is folded at the load."""
    rng = np.random.default_rng(seed)
    constants = {
        "weights": rng.normal(size=(FEATURES, CLASSES)).astype(np.float32),
        "unit": np.array([1e-30], dtype=np.float32),
        "root": np.array([447.3, 447.3], dtype=np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["root", "root"], ["sides"]),
        helper.make_node("Cast", ["sides"], ["shape"], to=TensorProto.INT64),
        helper.make_node("Expand", ["unit", "shape"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["x", "weights"], ["raw"]),
        helper.make_node("Add", ["raw", "mean"], ["shifted"]),
        helper.make_node("Softmax", ["shifted"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "huge",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def harmful_samples(n: int = 50) -> np.ndarray:
    """[n, 4] float32 that trigger it."""
    x = samples(n)
    x[:, 0] = HARMFUL
    return x
