"""Model files that mean harm, each with what must be said of it.

GUARDED are refused without running anything; RUNNING look harmless and are found out by
their first run, in a process with limits.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INT, FLOAT, BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL
YES = True
HUGE = 17_179_869_184
"""Of float32: 64 GiB."""


@dataclass(frozen=True)
class Hostile:
    """name: of the case. build: its bytes. says: a pattern of the reason."""

    name: str
    build: Callable[[], bytes]
    says: str


def constant(name: str, values: Any, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=dtype), name)


def model(
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto] | None = None,
    *,
    opsets: list[tuple[str, int]] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
    output: str = "y",
) -> bytes:
    """x float32 [n, 4] goes in, ``output`` comes out; everything else is the case's."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 4])],
        [helper.make_tensor_value_info(output, FLOAT, None)],
        initializers or [],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets or [("", 20)]]
    made = helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions or [])
    return made.SerializeToString()


def node(op: str, inputs: list[str], outputs: list[str], **more: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, **more)


def plain() -> bytes:
    """Nothing is wrong with this one."""
    return model([node("MatMul", ["x", "w"], ["y"])], [constant("w", np.eye(4), np.float32)])


def external(location: str) -> bytes:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4, 4], data_location=1)
    tensor.external_data.add(key="location", value=location)
    return model([node("MatMul", ["x", "w"], ["y"])], [tensor])


def unbacked(*dims: int) -> bytes:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=dims)
    return model([node("MatMul", ["x", "w"], ["y"])], [tensor])


def sparse_bomb() -> bytes:
    made = onnx.load_from_string(plain())
    del made.graph.initializer[:]
    sparse = made.graph.sparse_initializer.add()
    sparse.values.CopyFrom(constant("w", [1.0], np.float32))
    sparse.indices.CopyFrom(constant("", [0]))
    sparse.dims.extend([131_072, 131_072])
    return made.SerializeToString()


def loop(*, trips: int | None, body_cond: str) -> bytes:
    """A Loop that adds 1 to x. body_cond: ``true``, ``same`` or ``computed``."""
    one = helper.make_node("Constant", [], ["one"], value=constant("one", 1.0, np.float32))
    conds = {
        "true": [node("Constant", [], ["go_on"], value=constant("go_on", YES, np.bool_))],
        "same": [node("Identity", ["cond"], ["go_on"])],
        "computed": [
            node("ReduceMax", ["sum"], ["most"], keepdims=0),
            node("Abs", ["most"], ["size"]),
            node("Constant", [], ["low"], value=constant("low", -1.0, np.float32)),
            node("Greater", ["size", "low"], ["go_on"]),
        ],
    }
    body = helper.make_graph(
        [one, node("Add", ["value", "one"], ["sum"]), *conds[body_cond]],
        "body",
        [
            helper.make_tensor_value_info("i", INT, []),
            helper.make_tensor_value_info("cond", BOOL, []),
            helper.make_tensor_value_info("value", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", BOOL, []),
            helper.make_tensor_value_info("sum", FLOAT, None),
        ],
    )
    initializers = [constant("yes", YES, np.bool_)]
    count = ""
    if trips is not None:
        initializers.append(constant("trips", trips))
        count = "trips"
    return model([node("Loop", [count, "yes", "x"], ["y"], body=body)], initializers)


def nested_loops() -> bytes:
    """A thousand times a thousand times a thousand."""
    inner: list[onnx.NodeProto] = [node("Identity", ["v0"], ["r0"])]
    for level in range(3):
        body = helper.make_graph(
            [*inner, node("Identity", [f"c{level}"], [f"o{level}"])],
            f"b{level}",
            [
                helper.make_tensor_value_info(f"i{level}", INT, []),
                helper.make_tensor_value_info(f"c{level}", BOOL, []),
                helper.make_tensor_value_info(f"v{level}", FLOAT, None),
            ],
            [
                helper.make_tensor_value_info(f"o{level}", BOOL, []),
                helper.make_tensor_value_info(f"r{level}", FLOAT, None),
            ],
        )
        value, result = ("x", "y") if level == 2 else (f"v{level + 1}", f"r{level + 1}")
        inner = [node("Loop", ["trips", "yes", value], [result], body=body)]
    return model(inner, [constant("trips", 1000), constant("yes", YES, np.bool_)])


def deep_branches(levels: int = 24) -> bytes:
    inner = [node("Identity", ["x"], ["y"])]
    for level in range(levels):
        result = [helper.make_tensor_value_info("y", FLOAT, None)]
        body = helper.make_graph(inner, f"b{level}", [], result)
        inner = [node("If", ["yes"], ["y"], then_branch=body, else_branch=body)]
        if level > 6:  # two branches each would double the file at every level
            del inner[0].attribute[1]
    return model(inner, [constant("yes", YES, np.bool_)])


def function(name: str, calls: list[str], domain: str = "local") -> onnx.FunctionProto:
    nodes, value = [], "x"
    for i, called in enumerate(calls):
        nodes.append(node(called, [value], [f"t{i}"], domain=domain))
        value = f"t{i}"
    nodes.append(node("Identity", [value], ["y"]))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(domain, 1)]
    return helper.make_function(domain, name, ["x"], ["y"], nodes, opsets)


def calling(functions: list[onnx.FunctionProto], first: str, domain: str = "local") -> bytes:
    nodes = [node(first, ["x"], ["y"], domain=domain)]
    return model(nodes, opsets=[("", 20), (domain, 1)], functions=functions)


def shaped(op: str, *inputs: str, last: list[int]) -> bytes:
    """An operator whose last input is a constant of the file."""
    return model([node(op, [*inputs, "shape"], ["y"])], [constant("shape", last)])


def passed_on() -> bytes:
    """The shape reaches the operator by way of others."""
    nodes = [
        node("Constant", [], ["a"], value=constant("a", [131_072, 131_072])),
        node("Identity", ["a"], ["b"]),
        node("Cast", ["b"], ["c"], to=INT),
        node("ConstantOfShape", ["c"], ["y"]),
    ]
    return model(nodes)


def doubling(times: int = 34) -> bytes:
    """x joined with itself over and over: no size of it stands in the file."""
    nodes, value = [], "x"
    for i in range(times):
        nodes.append(node("Concat", [value, value], [f"t{i}"], axis=1))
        value = f"t{i}"
    return model([*nodes, node("ReduceSum", [value], ["y"])])


def outer_product() -> bytes:
    """100,000 by 1 times 1 by 100,000: 40 GB out of 800 KB."""
    n = 100_000
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Mul", ["column", "s"], ["a"]),
        node("MatMul", ["a", "row"], ["b"]),
        node("ReduceSum", ["b"], ["y"]),
    ]
    column = constant("column", np.ones((n, 1)), np.float32)
    return model(nodes, [column, constant("row", np.ones((1, n)), np.float32)])


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def twice(field: int) -> bytes:
    """The model says its graph, or its opset's domain, a second time."""
    again = onnx.load_from_string(plain()).graph.SerializeToString()
    return plain() + varint(field << 3 | 2) + varint(len(again)) + again


def two_names() -> bytes:
    weights = [constant("w", np.eye(4), np.float32), constant("w", np.zeros((4, 4)), np.float32)]
    return model([node("MatMul", ["x", "w"], ["y"])], weights)


def two_types() -> bytes:
    """An operator that is a Relu for one reader and a Loop for another."""
    made = node("Relu", ["x"], ["y"]).SerializeToString() + b"\x22\x04Loop"
    graph = b"\x0a" + varint(len(made)) + made
    return b"\x08\x0a" + b"\x3a" + varint(len(graph)) + graph


def countless(fields: int) -> bytes:
    """A graph of nothing but empty nodes."""
    return b"\x3a" + varint(2 * fields) + b"\x0a\x00" * fields


def endless_inputs(fields: int = 2_500_000) -> bytes:
    """One node with inputs of no name."""
    made = b"\x0a\x00" * fields
    graph = b"\x0a" + varint(len(made)) + made
    return b"\x3a" + varint(len(graph)) + graph


def ort_format() -> bytes:
    return struct.pack("<I", 24) + b"ORTM" + bytes(64)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.onnx", bytes(10_000_000))
    return file.getvalue()


def npz_bomb(megabytes: int) -> bytes:
    """Inputs for a model: few bytes that unpack to many."""
    file = io.BytesIO()
    block = bytes(1024 * 1024)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        head = io.BytesIO()
        shape = (megabytes * 1024**2 // 16, 4)
        described = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(head, described)
        with archive.open("x.npy", "w", force_zip64=True) as entry:
            entry.write(head.getvalue())
            for _ in range(megabytes):
                entry.write(block)
        y = io.BytesIO()
        np.save(y, np.zeros(4, np.int64))
        archive.writestr("y.npy", y.getvalue())
    return file.getvalue()


def lying_npz() -> bytes:
    """Inputs whose header promises 64 GB and brings nothing."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        head = io.BytesIO()
        described = {"descr": "<f4", "fortran_order": False, "shape": (HUGE // 4, 4)}
        np.lib.format.write_array_header_1_0(head, described)
        archive.writestr("x.npy", head.getvalue())
        y = io.BytesIO()
        np.save(y, np.zeros(4, np.int64))
        archive.writestr("y.npy", y.getvalue())
    return file.getvalue()


CHAIN = [function(f"f{i}", [f"f{i + 1}"]) for i in range(60)] + [function("f60", [])]
FLOOD = [function(f"f{i}", [f"f{i + 1}"] * 10) for i in range(9)] + [function("f9", [])]

GUARDED = (
    Hostile("external data", lambda: external("weights.bin"), r"other files \('weights.bin'\)"),
    Hostile("path traversal", lambda: external("../../etc/passwd"), "other files .*etc/passwd"),
    Hostile("absolute path", lambda: external("/etc/shadow"), "other files .*/etc/shadow"),
    Hostile("memory address", lambda: external("*/_ORT_MEM_ADDR_/*"), "other files"),
    Hostile(
        "custom domain",
        lambda: model(
            [node("Run", ["x"], ["y"], domain="evil.example")],
            opsets=[("", 20), ("evil.example", 1)],
        ),
        "domain 'evil.example', which is not allowed",
    ),
    Hostile(
        "domain that is not declared",
        lambda: model([node("Run", ["x"], ["y"], domain="evil.example")]),
        "operator 'Run' of the domain 'evil.example'",
    ),
    Hostile(
        "context of another runtime",
        lambda: model(
            [node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="/x.so")],
            opsets=[("", 20), ("com.microsoft", 1)],
        ),
        "operator 'EPContext' of the domain 'com.microsoft', which is not allowed",
    ),
    Hostile(
        "calls torch",
        lambda: model([node("ATen", ["x"], ["y"], domain="org.pytorch.aten")]),
        "operator 'ATen' of the domain 'org.pytorch.aten'",
    ),
    Hostile("unknown operator", lambda: model([node("Spawn", ["x"], ["y"])]), "operator 'Spawn'"),
    Hostile("endless loop", lambda: loop(trips=None, body_cond="true"), "runs without end"),
    Hostile("loop that asks itself", lambda: loop(trips=None, body_cond="same"), "without end"),
    Hostile("huge loop", lambda: loop(trips=2**62, body_cond="true"), "Loop.* runs .* times"),
    Hostile("loops in loops", nested_loops, "runs 1,000,000,000 times"),
    Hostile("64 GB without bytes", lambda: unbacked(HUGE), "needs 17,179,869,184 values and has 0"),
    Hostile("negative size", lambda: unbacked(-1, 4), "negative size"),
    Hostile("size beyond 64 bits", lambda: unbacked(2**62, 2**62, 4), "needs .* values and has 0"),
    Hostile("sparse tensor of 64 GB", sparse_bomb, "sparse tensor 'w' would need too much memory"),
    Hostile(
        "constant of 64 GB",
        lambda: shaped("ConstantOfShape", last=[131_072, 131_072]),
        "makes a tensor of 17,179,869,184 elements",
    ),
    Hostile("constant of 64 GB, passed on", passed_on, "makes a tensor of 17,179,869,184"),
    Hostile("expanded", lambda: shaped("Expand", "x", last=[1, 2**20, 2**14, 4]), "makes a tensor"),
    Hostile("tiled", lambda: shaped("Tile", "x", last=[2**20, 2**14]), "makes a tensor"),
    Hostile(
        "range",
        lambda: model(
            [node("Range", ["a", "b", "c"], ["y"])],
            [constant("a", 0), constant("b", 2**40), constant("c", 1)],
        ),
        "makes a tensor of 1,099,511,627,776",
    ),
    Hostile(
        "range without a step",
        lambda: model(
            [node("Range", ["a", "b", "c"], ["y"])],
            [constant("a", 0), constant("b", 5), constant("c", 0)],
        ),
        "makes a tensor of inf",
    ),
    Hostile(
        "random numbers",
        lambda: model([node("RandomNormal", [], ["y"], shape=[2**20, 2**20])]),
        "makes a tensor",
    ),
    Hostile(
        "one hot",
        lambda: model(
            [node("OneHot", ["i", "depth", "values"], ["y"])],
            [constant("i", [0]), constant("depth", 2**33), constant("values", [0, 1], np.float32)],
        ),
        "makes a tensor",
    ),
    Hostile("nested branches", deep_branches, "nests graphs too deep"),
    Hostile(
        "function that calls itself",
        lambda: calling([function("a", ["b"]), function("b", ["a"])], "a"),
        "function 'a' calls itself",
    ),
    Hostile("functions in functions", lambda: calling(CHAIN, "f0"), "nests functions too deep"),
    Hostile("functions that multiply", lambda: calling(FLOOD, "f0"), "once its functions are inl"),
    Hostile(
        "function in place of an operator",
        lambda: calling([function("Relu", [], "ai.onnx")], "Relu", "ai.onnx"),
        "into a standard domain",
    ),
    Hostile("graph twice", lambda: twice(7), "field 7 of a model twice"),
    Hostile("operator of two types", two_types, "field 4 of a node twice"),
    Hostile("two initializers of a name", two_names, "two initializers have the name 'w'"),
    Hostile("countless nodes", lambda: countless(110_000), "more than 100,000 nodes"),
    Hostile("cut short", lambda: plain()[:-20], "not a well-formed ONNX file: it ends early"),
    Hostile("gzip", lambda: gzip.compress(plain()), "a gzip file; unpack it first"),
    Hostile("zip", zipped, "a zip archive; unpack it first"),
    Hostile("onnxruntime's own format", ort_format, "onnxruntime's own format"),
    Hostile("no graph", lambda: b"\x08\x0a", "holds no ONNX graph"),
    Hostile("nothing", lambda: b"", "empty"),
)

COUNTLESS = Hostile("countless inputs", endless_inputs, "more than 2,000,000 parts")
"""Takes seconds to refuse; once is enough."""

RUNNING = (
    Hostile("loop whose end never comes", lambda: loop(trips=None, body_cond="computed"), "longer"),
    Hostile("doubled over and over", doubling, "needs more than"),
    Hostile("outer product", outer_product, "needs more than"),
)
