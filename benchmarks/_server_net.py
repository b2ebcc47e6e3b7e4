"""The net that servers are compared with: 64 numbers in, 10 probabilities out, untrained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from schemas.signature import Signature, TensorSpec

FEATURES, HIDDEN, CLASSES = 64, 64, 10
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, FEATURES)),),
    outputs=(TensorSpec(name="probabilities", dtype="float32", shape=(-1, CLASSES)),),
)


def write_net(path: Path) -> None:
    """Write it: two layers, as for the digits of 8 by 8 pixels."""
    rng = np.random.default_rng(0)
    sizes = {"first": (FEATURES, HIDDEN), "second": (HIDDEN, CLASSES)}
    weights = [
        numpy_helper.from_array((rng.normal(size=size) / 8).astype(np.float32), name)
        for name, size in sizes.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["c"]),
        helper.make_node("Softmax", ["c"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)


def sample() -> list[float]:
    """64 pixels from 0 to 1, as a program would write them."""
    rng = np.random.default_rng(1)
    return [round(float(v), 4) for v in rng.uniform(0, 1, FEATURES)]
