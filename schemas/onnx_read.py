"""An ONNX file as a tree of what a check needs to know, read without any library.

Names, operators, attributes and the few small constants are kept; weights are looked at
where they lie. Field numbers: onnx.proto,
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from schemas.onnx_tensor import SMALL, Tensor, add_dims, collect, shown, text
from schemas.onnx_wire import (
    BYTES,
    FIXED32,
    MAX_FIELDS,
    VARINT,
    Reader,
    Shape,
    UnsafeModelError,
    malformed,
    packed,
    signed,
)

MAX_NODES = 100_000
MAX_ATTRIBUTES = 400_000
MAX_INITIALIZERS = 200_000
MAX_FUNCTIONS = 10_000
MAX_NESTING = 16
"""Of graphs in graphs (branches, bodies of loops)."""
MAX_DENSE_BYTES = 512 * 1024**2
"""Of a sparse tensor, which is made dense when it is loaded."""


def _all(*numbers: int, wire: int) -> dict[int, int]:
    return dict.fromkeys(numbers, wire)


MODEL = Shape(
    "model",
    _all(1, 5, wire=VARINT) | _all(2, 3, 4, 6, 7, 8, 14, 20, 25, 26, wire=BYTES),
    frozenset({8, 14, 20, 25, 26}),
)
OPSET = Shape("opset", {1: BYTES, 2: VARINT})
TRAINING = Shape("training", _all(1, 2, 3, 4, wire=BYTES), frozenset({3, 4}))
FUNCTION = Shape(
    "function",
    _all(1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, wire=BYTES),
    frozenset({4, 5, 6, 7, 9, 11, 12, 14}),
)
GRAPH = Shape(
    "graph",
    _all(1, 2, 5, 10, 11, 12, 13, 14, 15, 16, wire=BYTES),
    frozenset({1, 5, 11, 12, 13, 14, 15, 16}),
)
NODE = Shape("node", _all(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, wire=BYTES), frozenset({1, 2, 5, 9, 10}))
_NODE_NAMES = {3: "name", 4: "op", 7: "domain", 8: "overload"}
ATTRIBUTE = Shape(
    "attribute",
    _all(1, 4, 5, 6, 9, 10, 11, 13, 14, 15, 21, 22, 23, wire=BYTES)
    | _all(3, 8, 20, wire=VARINT)
    | _all(2, 7, wire=FIXED32),
    frozenset({7, 8, 9, 10, 11, 15, 23}),
)
SPARSE = Shape("sparse tensor", {1: BYTES, 2: BYTES, 3: VARINT}, frozenset({3}))
VALUE_INFO = Shape("value", _all(1, 2, 3, 4, wire=BYTES), frozenset({4}))


@dataclass(slots=True)
class Attribute:
    """What a check asks of an attribute. tensors, graphs: in the fields of one and of many."""

    name: str = ""
    i: int | None = None
    ints: list[int] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    graphs: list[Graph] = field(default_factory=list)


@dataclass(slots=True)
class Node:
    """An operator, or the call of a function."""

    op: str = ""
    domain: str = ""
    name: str = ""
    overload: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, Attribute] = field(default_factory=dict)

    def graphs(self) -> list[Graph]:
        """Branches and bodies."""
        return [graph for a in self.attributes.values() for graph in a.graphs]


@dataclass(slots=True)
class Graph:
    """Nodes with the constants they use; inputs and outputs by name."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Function:
    """A local function. graph: its body, and the attributes that it gives defaults."""

    name: str = ""
    domain: str = ""
    overload: str = ""
    graph: Graph = field(default_factory=Graph)
    opsets: list[tuple[str, int]] = field(default_factory=list)


@dataclass(slots=True)
class Model:
    """A whole file. extra: graphs for training, which nothing here runs."""

    ir_version: int = 0
    opsets: list[tuple[str, int]] = field(default_factory=list)
    graph: Graph | None = None
    functions: list[Function] = field(default_factory=list)
    extra: list[Graph] = field(default_factory=list)


def read_model(data: memoryview, max_fields: int = MAX_FIELDS) -> Model:
    """Read a file.

    Raises:
        UnsafeModelError: it is malformed, past a limit, or a tensor is not what it says.
    """
    return _Builder(Reader(max_fields)).model(data)


@dataclass(slots=True)
class _Builder:
    reader: Reader
    nodes: int = 0
    attributes: int = 0
    initializers: int = 0

    def model(self, data: memoryview) -> Model:
        found = Model()
        for number, value in self.reader.read(MODEL, data):
            if number == 1 and isinstance(value, int):
                found.ir_version = signed(value)
            elif isinstance(value, memoryview):
                self._model_part(found, number, value)
        return found

    def _model_part(self, found: Model, number: int, value: memoryview) -> None:
        if number == 7:  # noqa: PLR2004 - onnx.proto's numbers, here and below
            found.graph = self.graph(value, 0)
        elif number == 8:  # noqa: PLR2004
            found.opsets.append(self.opset(value))
        elif number == 20:  # noqa: PLR2004
            parts = [v for n, v in self.reader.read(TRAINING, value) if n in {1, 2}]
            found.extra += [self.graph(v, 0) for v in parts if isinstance(v, memoryview)]
        elif number == 25:  # noqa: PLR2004
            if len(found.functions) >= MAX_FUNCTIONS:
                msg = f"the model has more than {MAX_FUNCTIONS:,} functions"
                raise UnsafeModelError(msg)
            found.functions.append(self.function(value))

    def opset(self, data: memoryview) -> tuple[str, int]:
        domain, version = "", 0
        for number, value in self.reader.read(OPSET, data):
            if number == 1:
                domain = text(value)
            elif isinstance(value, int):
                version = signed(value)
        return domain, version

    def function(self, data: memoryview) -> Function:
        found = Function()
        for number, value in self.reader.read(FUNCTION, data):
            match number:
                case 1:
                    found.name = text(value)
                case 10:
                    found.domain = text(value)
                case 13:
                    found.overload = text(value)
                case 4:
                    found.graph.inputs.append(text(value))
                case 5:
                    found.graph.outputs.append(text(value))
                case 7 if isinstance(value, memoryview):
                    found.graph.nodes.append(self.node(value, 0))
                case 9 if isinstance(value, memoryview):
                    found.opsets.append(self.opset(value))
                case 11 if isinstance(value, memoryview):
                    # A default may hold a graph: it is checked as a part of the body.
                    default = self.attribute(value, 0)
                    found.graph.nodes.append(Node("Constant", attributes={default.name: default}))
        return found

    def graph(self, data: memoryview, depth: int) -> Graph:
        if depth > MAX_NESTING:
            msg = f"the model nests graphs too deep (more than {MAX_NESTING} levels)"
            raise UnsafeModelError(msg)
        found = Graph()
        for number, value in self.reader.read(GRAPH, data):
            if not isinstance(value, memoryview):
                raise malformed()
            match number:
                case 1:
                    found.nodes.append(self.node(value, depth))
                case 5:
                    self._constant(found, collect(self.reader, value))
                case 15:
                    self._constant(found, self.sparse(value))
                case 11:
                    found.inputs.append(self.value_name(value))
                case 12:
                    found.outputs.append(self.value_name(value))
        return found

    def _constant(self, graph: Graph, tensor: Tensor) -> None:
        self.initializers += 1
        if self.initializers > MAX_INITIALIZERS:
            msg = f"the model has more than {MAX_INITIALIZERS:,} initializers"
            raise UnsafeModelError(msg)
        if tensor.name in graph.constants:
            msg = f"two initializers have the name {shown(tensor.name)}"
            raise UnsafeModelError(msg)
        graph.constants[tensor.name] = tensor

    def node(self, data: memoryview, depth: int) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            msg = f"the model has more than {MAX_NODES:,} nodes"
            raise UnsafeModelError(msg)
        found = Node()
        for number, value in self.reader.read(NODE, data):
            if number == 5 and isinstance(value, memoryview):  # noqa: PLR2004
                attribute = self.attribute(value, depth)
                if attribute.name in found.attributes:
                    msg = f"an operator has the attribute {shown(attribute.name)} twice"
                    raise UnsafeModelError(msg)
                found.attributes[attribute.name] = attribute
            elif number in {1, 2}:
                (found.inputs if number == 1 else found.outputs).append(text(value))
            elif number in _NODE_NAMES:
                setattr(found, _NODE_NAMES[number], text(value))
        return found

    def attribute(self, data: memoryview, depth: int) -> Attribute:
        self.attributes += 1
        if self.attributes > MAX_ATTRIBUTES:
            msg = f"the model has more than {MAX_ATTRIBUTES:,} attributes"
            raise UnsafeModelError(msg)
        found = Attribute()
        for number, value in self.reader.read(ATTRIBUTE, data):
            match number, value:
                case 1, _:
                    found.name = text(value)
                case 3, int():
                    found.i = signed(value)
                case 8, _:
                    more = [value] if isinstance(value, int) else packed(value, SMALL)
                    found.ints += [signed(one) for one in more[: SMALL - len(found.ints)]]
                case ((5 | 10), memoryview()):
                    found.tensors.append(collect(self.reader, value))
                case ((6 | 11), memoryview()):
                    found.graphs.append(self.graph(value, depth + 1))
                case ((22 | 23), memoryview()):
                    found.tensors.append(self.sparse(value))
        return found

    def sparse(self, data: memoryview) -> Tensor:
        """A sparse tensor, as a tensor without small values."""
        parts: dict[int, Tensor] = {}
        dims: list[int] = []
        for number, value in self.reader.read(SPARSE, data):
            if isinstance(value, memoryview) and number in {1, 2}:
                parts[number] = collect(self.reader, value)
            else:
                add_dims(dims, value)
        values = parts.get(1, Tensor())
        if any(size < 0 for size in dims) or math.prod(dims) * 16 > MAX_DENSE_BYTES:
            msg = f"the sparse tensor {shown(values.name)} would need too much memory: {dims[:8]}"
            raise UnsafeModelError(msg)
        return Tensor(values.name, values.dtype, tuple(dims))

    def value_name(self, data: memoryview) -> str:
        found = ""
        for number, value in self.reader.read(VALUE_INFO, data):
            if number == 1:
                found = text(value)
        return found


def every_graph(roots: Sequence[Graph]) -> list[Graph]:
    """Those and all within them."""
    found = list(roots)
    for graph in found:  # grows as it goes
        found += chain.from_iterable(node.graphs() for node in graph.nodes)
    return found
