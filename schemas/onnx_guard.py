"""Refuse model files that are not safe to open, before any library opens them.

A model from elsewhere is a program for ONNX Runtime. This reads the file without a library
(a device has no onnx package) in one pass and bounded memory, and refuses: what reads other
files; operators and domains that are not on the list; functions that call themselves; graphs
nested too deep or too large; tensors whose bytes are not there; constants that ask for huge
tensors or endless loops; and whatever two parsers could read differently. Passing it does
not make a model harmless: it is first run in a process with limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.onnx_bombs import refuse_bombs
from schemas.onnx_operators import ALLOWED, HARMLESS_IMPORTS, canonical
from schemas.onnx_read import MAX_NODES, Function, Graph, Model, Node, every_graph, read_model
from schemas.onnx_tensor import shown
from schemas.onnx_wire import UnsafeModelError

__all__ = ["Facts", "UnsafeModelError", "check_model"]

MAX_CALLS = 32
"""Of functions in functions."""

_ORT_MAGIC = b"ORTM"
"""At byte 4 it makes onnxruntime read a flatbuffer instead, even of valid protobuf."""
_OTHERS = {
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it first",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself",
    b"\x7fELF": "a program",
}

_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the file says of itself. opset: of the standard operators; nodes: with branches."""

    ir_version: int
    opset: int
    nodes: int


def check_model(model: bytes | memoryview) -> Facts:
    """Check a serialized model.

    Args:
        model: the whole file, which may be a memory map.

    Raises:
        UnsafeModelError: it is refused; the message is one line, safe to show.
    """
    view = memoryview(model).cast("B")
    _refuse_other_formats(view)
    found = read_model(view)
    if found.graph is None:
        msg = "the file holds no ONNX graph"
        raise UnsafeModelError(msg)
    functions = _functions(found)
    opset = _opsets(found, functions)
    graphs = every_graph([found.graph, *(f.graph for f in found.functions), *found.extra])
    for graph in graphs:
        for node in graph.nodes:
            _refuse_operator(node, functions)
    _refuse_recursion(found.graph, functions)
    refuse_bombs(found)
    return Facts(found.ir_version, opset, sum(len(graph.nodes) for graph in graphs))


def _refuse_other_formats(view: memoryview) -> None:
    head = bytes(view[:32])
    if head[4:8] == _ORT_MAGIC:
        msg = "the model is in onnxruntime's own format; export it as ONNX"
        raise UnsafeModelError(msg)
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            msg = f"this is no ONNX file but {what}"
            raise UnsafeModelError(msg)
    if not head:
        msg = "the file is empty"
        raise UnsafeModelError(msg)


def _functions(model: Model) -> dict[_Key, Function]:
    """The local functions by what calls them."""
    found: dict[_Key, Function] = {}
    for function in model.functions:
        key = (canonical(function.domain), function.name, function.overload)
        if key[0] in ALLOWED:
            msg = f"the model puts a function {shown(function.name)} into a standard domain"
            raise UnsafeModelError(msg)
        if key in found:
            msg = f"the model has two functions {shown(function.name)}"
            raise UnsafeModelError(msg)
        found[key] = function
    return found


def _opsets(model: Model, functions: dict[_Key, Function]) -> int:
    """The version of the standard operators; refuses domains that nobody knows."""
    own = {domain for domain, _, _ in functions}
    for opsets in (model.opsets, *(f.opsets for f in model.functions)):
        seen: dict[str, int] = {}
        for name, version in opsets:
            domain = canonical(name)
            if domain not in ALLOWED and domain not in HARMLESS_IMPORTS and domain not in own:
                msg = f"the model uses the operator domain {shown(name)}, which is not allowed"
                raise UnsafeModelError(msg)
            if seen.setdefault(domain, version) != version:
                msg = f"the model declares the domain {shown(name)} in two versions"
                raise UnsafeModelError(msg)
    return {canonical(name): version for name, version in model.opsets}.get("", 0)


def _refuse_operator(node: Node, functions: dict[_Key, Function]) -> None:
    if node.op in ALLOWED.get(canonical(node.domain), ()) or _key(node) in functions:
        return
    domain = canonical(node.domain)
    of = f" of the domain {shown(domain)}" if domain else ""
    msg = f"the model uses the operator {shown(node.op)}{of}, which is not allowed"
    raise UnsafeModelError(msg)


def _key(node: Node) -> _Key:
    return canonical(node.domain), node.op, node.overload


def _refuse_recursion(graph: Graph, functions: dict[_Key, Function]) -> None:
    """Functions are inlined when a model is loaded: they must end, and not multiply."""
    known: dict[_Key, tuple[int, int]] = {}

    def of(key: _Key, callers: tuple[_Key, ...]) -> tuple[int, int]:
        if key in callers:
            msg = f"the function {shown(key[1])} calls itself"
            raise UnsafeModelError(msg)
        if key not in known:
            nodes, levels = within(functions[key].graph, (*callers, key))
            known[key] = nodes, levels + 1
        if len(callers) + known[key][1] > MAX_CALLS:
            msg = f"the model nests functions too deep (more than {MAX_CALLS} levels)"
            raise UnsafeModelError(msg)
        return known[key]

    def within(body: Graph, callers: tuple[_Key, ...]) -> tuple[int, int]:
        """Nodes when all is inlined, and levels of functions."""
        count, deepest = 0, 0
        if len(callers) > MAX_CALLS:
            return count, deepest
        for node in _nodes(body):
            key = _key(node)
            nodes, levels = of(key, callers) if key in functions else (1, 0)
            count, deepest = count + nodes, max(deepest, levels)
            if count > MAX_NODES:
                msg = f"the model has more than {MAX_NODES:,} nodes once its functions are inlined"
                raise UnsafeModelError(msg)
        return count, deepest

    within(graph, ())
    for key in functions:
        of(key, ())


def _nodes(body: Graph) -> Iterator[Node]:
    for graph in every_graph([body]):
        yield from graph.nodes
