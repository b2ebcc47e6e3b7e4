"""What a graph is made of, as far as quantization must know: layers, and kinds of nets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

QUANTIZED = (
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Relu",
    "Clip",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
    "Reshape",
    "Flatten",
    "Transpose",
)
"""Operators that run in INT8. Casting, scaling and softmax stay in float."""

_FOLLOWERS = frozenset(
    {
        "Relu",
        "Clip",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "Reshape",
        "Flatten",
        "Transpose",
    }
)
"""Operators that only pass on, or cut, the values of the one before them."""

_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_ATTENTION = frozenset({"Attention", "MultiHeadAttention"})
_NORMS = frozenset(
    {"LayerNormalization", "SkipLayerNormalization", "RMSNormalization", "SimplifiedLayerNorm"}
)
_MATRIX = 2


@dataclass(frozen=True, slots=True)
class Layer:
    """Operators that are quantized or left in float together: one, and what follows it alone.

    Left apart, a ReLU in INT8 would clip what a convolution in float was to keep.
    nodes: names, in order. output: the tensor that leaves it.
    """

    nodes: tuple[str, ...]
    output: str


def layers_of(graph: onnx.GraphProto) -> tuple[Layer, ...]:
    """The layers of a graph whose operators are quantized, in its order."""
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    layer_at: dict[str, int] = {}  # the tensor that leaves a layer → its index
    found: list[list[str]] = []
    outputs: list[str] = []
    for node in graph.node:
        if node.op_type not in QUANTIZED or not node.output:
            continue
        source = node.input[0] if node.input else ""
        joined = layer_at.get(source) if node.op_type in _FOLLOWERS else None
        if joined is None or uses[source] != 1:
            joined = len(found)
            found.append([])
            outputs.append("")
        found[joined].append(node.name)
        outputs[joined] = node.output[0]
        layer_at[node.output[0]] = joined
    return tuple(Layer(tuple(names), out) for names, out in zip(found, outputs, strict=True))


def stacked_products(graph: onnx.GraphProto) -> list[str]:
    """The MatMul nodes whose constant weights are several matrices, one per feature or head.

    ONNX Runtime's INT8 product takes scales per column of one matrix alone; with others it
    fails when it runs. They stay in FP32.
    """
    dims = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "MatMul"
        and any(dims.get(name, _MATRIX) > _MATRIX for name in node.input)
    ]


def wants_dynamic(graph: onnx.GraphProto) -> bool:
    """Whether a net is of the transformers' or the recurrent kind.

    Ranges of their activations depend on the input so much that they are better found as it
    comes. A net that convolves with constant weights is not: dynamic quantization ruins it.
    """
    constant = {tensor.name for tensor in graph.initializer}
    nodes = list(all_nodes(graph))
    if any(n.op_type == "Conv" and n.input[1] in constant for n in nodes if len(n.input) > 1):
        return False
    kinds = {node.op_type for node in nodes}
    if kinds & (_RECURRENT | _ATTENTION):
        return True
    products = [n for n in nodes if n.op_type == "MatMul"]
    computed = any(not constant & set(node.input) for node in products)
    return computed and bool(kinds & _NORMS or "Softmax" in kinds)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of branches and loops included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from all_nodes(inner)


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node of the main graph a name of its own: some writers leave them out."""
    taken = Counter(node.name for node in graph.node)
    for index, node in enumerate(graph.node):
        if not node.name or taken[node.name] > 1:
            node.name = f"{node.op_type}_{index}_{node.output[0]}"[:200]
