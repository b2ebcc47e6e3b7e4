"""Constants in a model that make it compute without end or need memory without limit.

What can be seen in the file is refused here; what only running shows is left to the limits
of the process that first runs it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.onnx_read import Graph, Model, Node
from schemas.onnx_tensor import Tensor, shown
from schemas.onnx_wire import UnsafeModelError

MAX_ELEMENTS = 2**28
"""Of a tensor whose shape stands in the file: 1 GiB of float32."""
MAX_TRIPS = 1_000_000
"""Of a loop that nothing ends before its count, loops within loops together."""
_HOPS = 32
_SAME = frozenset({"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten"})
"""Operators through which a small constant is followed; none changes its values' product."""

_BY_INPUT = {
    "ConstantOfShape": 0, "BlackmanWindow": 0, "HammingWindow": 0, "HannWindow": 0,
    "Expand": 1, "Tile": 1, "OneHot": 1, "CenterCropPad": 1, "Col2Im": 1, "AffineGrid": 1,
    "DFT": 1, "MaxUnpool": 2,
}  # fmt: skip
"""Operators with the input whose values multiply to the size of the result, or to its factor."""
_BY_ATTRIBUTE = {
    "RandomNormal": "shape", "RandomUniform": "shape", "Multinomial": "sample_size",
    "ConvTranspose": "output_shape",
}  # fmt: skip
_SCALES = {"Resize": 2, "Upsample": 1}
_SIZES = 3
_RANGE_INPUTS = 3


@dataclass(slots=True)
class _Scope:
    """What is known in a graph: constants, and which node makes which small value."""

    graph: Graph
    outer: _Scope | None = None
    makers: dict[str, Node] = field(default_factory=dict)

    def tensor(self, name: str, hops: int = _HOPS) -> Tensor | None:
        """The constant behind a name, where the file shows it."""
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.graph.constants:
                return scope.graph.constants[name]
            maker = scope.makers.get(name)
            if maker is not None:
                return _made(scope, maker, hops)
            scope = scope.outer
        return None

    def values(self, node: Node, index: int) -> tuple[float, ...] | None:
        """The values of an input, where the file shows them."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        found = self.tensor(node.inputs[index])
        return None if found is None else found.values


def _made(scope: _Scope, maker: Node, hops: int) -> Tensor | None:
    """What a node makes that only passes on, or is a constant."""
    if maker.op in _SAME:
        return scope.tensor(maker.inputs[0], hops - 1) if hops and maker.inputs else None
    for attribute in maker.attributes.values():
        if attribute.tensors:
            return attribute.tensors[0]
        whole = attribute.ints or ([] if attribute.i is None else [attribute.i])
        if whole:
            return Tensor(attribute.name, 7, (len(whole),), tuple(whole))
    return None


def refuse_bombs(model: Model) -> None:
    """Check every graph of a model.

    Raises:
        UnsafeModelError: a tensor would be too large, or a loop would not end.
    """
    roots = [] if model.graph is None else [model.graph]
    for graph in (*roots, *(f.graph for f in model.functions), *model.extra):
        _check(_scope(graph, None), 1)


def _scope(graph: Graph, outer: _Scope | None) -> _Scope:
    makers = {
        output: node
        for node in graph.nodes
        if node.op == "Constant" or node.op in _SAME
        for output in node.outputs
    }
    return _Scope(graph, outer, makers)


def _check(scope: _Scope, trips: int) -> None:
    for node in scope.graph.nodes:
        size = _size(scope, node)
        if size is not None and size > MAX_ELEMENTS:
            msg = f"{_where(node)} makes a tensor of {size:,.0f} elements or more"
            raise UnsafeModelError(msg)
        inner = trips * _trips(scope, node) if node.op == "Loop" else trips
        if inner > MAX_TRIPS:
            times = "without end" if math.isinf(inner) else f"{inner:,.0f} times"
            msg = f"{_where(node)} runs {times}: nothing in it ends it earlier"
            raise UnsafeModelError(msg)
        for graph in node.graphs():
            _check(_scope(graph, scope), int(inner))


def _size(scope: _Scope, node: Node) -> float | None:
    """How many elements a node gives at least, as far as the file tells."""
    index = _BY_INPUT.get(node.op)
    if index is not None:
        values = scope.values(node, index)
        return None if values is None else _product(values) * _fed(scope, node)
    if node.op in _BY_ATTRIBUTE:
        named = node.attributes.get(_BY_ATTRIBUTE[node.op])
        return None if named is None else _product(named.ints or [named.i or 0])
    if node.op == "Range":
        return _range(scope, node)
    if node.op == "Pad":
        pads = scope.values(node, 1)
        named = node.attributes.get("pads")
        return max((abs(p) for p in pads or (named.ints if named else ())), default=None)
    if node.op in _SCALES:
        scales = scope.values(node, _SCALES[node.op])
        sizes = scope.values(node, _SIZES) if node.op == "Resize" else None
        return None if not (sizes or scales) else _product(sizes or scales or ())
    return None


def _fed(scope: _Scope, node: Node) -> int:
    """How many elements a Tile repeats; 1 where the file does not tell."""
    fed = scope.tensor(node.inputs[0]) if node.op == "Tile" else None
    return 1 if fed is None else max(1, fed.elements)


def _range(scope: _Scope, node: Node) -> float | None:
    found = [scope.values(node, index) for index in range(_RANGE_INPUTS)]
    if any(values is None or len(values) != 1 for values in found):
        return None
    start, limit, step = (values[0] for values in found if values)
    if step == 0 or not all(map(math.isfinite, (start, limit, step))):
        return math.inf
    return max(0.0, (limit - start) / step)


def _product(values: Sequence[float]) -> float:
    """Of sizes; -1 (keep) and 0 (copy) count as 1, and what is no number as without limit."""
    return math.prod(v if v > 1 or v != v else 1 for v in values)  # noqa: PLR0124 - NaN


def _trips(scope: _Scope, node: Node) -> float:
    """How often a Loop runs, if nothing computed can end it before; 1 where that is open."""
    count = scope.values(node, 0)
    bodies = node.graphs()
    if not bodies or not _always(_scope(bodies[0], scope), node):
        return 1
    if count is not None:
        return max(1, count[0]) if count else 1
    return math.inf if not node.inputs or not node.inputs[0] else 1


def _always(body: _Scope, node: Node) -> bool:
    """Whether a loop's condition, once true, stays true."""
    if not body.graph.outputs:
        return False
    name = body.graph.outputs[0]
    for _ in range(_HOPS):
        if len(body.graph.inputs) > 1 and name == body.graph.inputs[1]:
            outside = body.outer.values(node, 1) if body.outer else None
            return outside is None or bool(outside and outside[0])
        maker = body.makers.get(name)
        if maker is None or maker.op == "Constant" or not maker.inputs:
            break
        name = maker.inputs[0]
    found = body.tensor(name)
    return found is not None and bool(found.values and found.values[0])


def _where(node: Node) -> str:
    return f"the operator {shown(node.name or node.op)}" + (f" ({node.op})" if node.name else "")
