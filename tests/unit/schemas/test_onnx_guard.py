"""Models made to hide external data from the guard, and onnxruntime's word on each."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf.descriptor import Descriptor
from onnx import TensorProto, helper

from edge_client import opened
from edge_client.errors import LoadError
from edge_client.inference import load_model
from schemas import onnx_read, onnx_tensor
from schemas.model import Manifest
from schemas.onnx_guard import UnsafeModelError, check_model
from schemas.onnx_wire import BYTES as WIRE_BYTES
from schemas.onnx_wire import FIXED32, FIXED64, VARINT
from tests.fakes.edge_models import CLASSES, FEATURES, linear_onnx, release, samples

GRAPH = 7
BYTES = 2
WEIGHTS = 4096
SECRET = np.arange(WEIGHTS, dtype=np.float32).reshape(64, 64)


def varint(number: int, pad: int = 0) -> bytes:
    """A varint, with ``pad`` bytes more than it needs."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    if pad:
        out[-1] |= 0x80
        out += b"\x80" * (pad - 1) + b"\x00"
    return bytes(out)


def field(number: int, body: bytes, *, high: int = 0, pad_tag: int = 0, pad_size: int = 0) -> bytes:
    tag = varint((number << 3 | BYTES) + high, pad_tag)
    return tag + varint(len(body), pad_size) + body


def outside() -> onnx.TensorProto:
    """A tensor that lies in secret.bin."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=SECRET.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "secret.bin"), ("offset", "0"), ("length", str(4 * WEIGHTS))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def parts() -> tuple[bytes, bytes]:
    """A model that reads secret.bin: all but its graph, and its graph."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [outside()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    head = onnx.ModelProto()
    head.CopyFrom(model)
    head.ClearField("graph")
    return head.SerializeToString(), graph.SerializeToString()


HEAD, BODY = parts()
CUT = len(BODY) // 2

# What onnxruntime loads, reading secret.bin, unless the guard stops it.
LOADED = {
    "plain": HEAD + field(GRAPH, BODY),
    "tag beyond 32 bits": HEAD + field(GRAPH, BODY, high=1 << 32),
    "tag at 35 bits": HEAD + field(GRAPH, BODY, high=1 << 34),
    "padded tag": HEAD + field(GRAPH, BODY, pad_tag=2),
    "tag padded to five bytes": HEAD + field(GRAPH, BODY, pad_tag=4),
    "padded length": HEAD + field(GRAPH, BODY, pad_size=2),
    "graph in two pieces": HEAD + field(GRAPH, b"") + field(GRAPH, BODY),
    "fixed-size graph before it": HEAD + varint(GRAPH << 3 | 5) + b"\0\0\0\0" + field(GRAPH, BODY),
    "unknown field before it": field(1000, b"?") + HEAD + field(GRAPH, BODY),
}


def run(model: bytes) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.eye(1, 64, dtype=np.float32)})[0]


@pytest.fixture
def secret(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(SECRET.tobytes())


@pytest.mark.parametrize("case", LOADED)
def test_what_onnxruntime_would_read_from_a_file_is_refused_before_it_loads(
    case, secret, monkeypatch
):
    np.testing.assert_array_equal(run(LOADED[case])[0], SECRET[0])
    manifest = Manifest.model_validate_json(release(linear_onnx()).manifest)
    seen = []
    monkeypatch.setattr(opened.ort, "InferenceSession", lambda *a, **_: seen.append(a))
    with pytest.raises(LoadError, match=r"other files|well-formed|twice"):
        load_model(LOADED[case], manifest, "fp32")
    assert not seen


def test_a_flatbuffer_inside_valid_protobuf_is_refused():
    # Field 2 of 64 bytes, "ORTM" among them: protobuf skips it, onnxruntime reads on there.
    disguised = b"\x12\x40\x00\x00ORTM" + bytes(58) + linear_onnx()
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.Fail, match="ORT model"):
        ort.InferenceSession(disguised, providers=["CPUExecutionProvider"])
    with pytest.raises(UnsafeModelError, match="own format"):
        check_model(disguised)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(varint(GRAPH << 3 | BYTES, 5) + b"\0", id="tag of six bytes"),
        pytest.param(varint(BYTES) + b"\0", id="field 0"),
        pytest.param(field(0, b"", pad_tag=1), id="field 0, padded"),
        pytest.param(varint(1000 << 3 | BYTES) + varint(0, 5), id="length of six bytes"),
        pytest.param(varint(1000 << 3 | BYTES) + varint(2**31), id="length of 2 GiB"),
        pytest.param(varint(1000 << 3 | BYTES) + varint(2**64), id="length beyond 64 bits"),
        pytest.param(varint(1000 << 3) + b"\xff" * 10 + b"\0", id="number of eleven bytes"),
        pytest.param(varint(1000 << 3 | 3) + varint(1000 << 3 | 4), id="a group"),
        pytest.param(varint(1000 << 3 | 4), id="the end of a group"),
        pytest.param(varint(1000 << 3 | 6), id="wire type 6"),
        pytest.param(varint(1000 << 3 | 7), id="wire type 7"),
        pytest.param(varint(1000 << 3 | 1) + bytes(7), id="a number cut short"),
        pytest.param(field(GRAPH, b"\x0a\x05"), id="a node longer than its graph"),
    ],
)
def test_what_the_two_parsers_could_read_differently_is_refused(data):
    with pytest.raises(UnsafeModelError, match=r"well-formed|twice"):
        check_model(data)
    with pytest.raises(UnsafeModelError, match=r"well-formed|twice"):
        check_model(linear_onnx() + data)


@pytest.mark.parametrize(
    "place", ["t", "tensors", "g", "graphs", "sparse_tensor", "sparse_tensors"]
)
@pytest.mark.parametrize("holder", ["node", "function", "attribute_proto", "training_info"])
def test_tensors_are_found_wherever_a_model_can_hold_them(holder, place):
    attribute = onnx.AttributeProto(name="a")
    if place in {"t", "tensors"}:
        tensor = attribute.t if place == "t" else attribute.tensors.add()
    elif place in {"g", "graphs"}:
        graph = attribute.g if place == "g" else attribute.graphs.add()
        tensor = graph.sparse_initializer.add().indices
    else:
        sparse = getattr(attribute, place)
        tensor = (sparse if place == "sparse_tensor" else sparse.add()).values
    tensor.external_data.add(key="location", value="x")
    model = onnx.load_from_string(linear_onnx())
    if holder == "node":
        model.graph.node[0].attribute.append(attribute)
    elif holder == "function":
        model.functions.add().node.add().attribute.append(attribute)
    elif holder == "attribute_proto":
        model.functions.add().attribute_proto.append(attribute)
    else:
        model.training_info.add().algorithm.node.add().attribute.append(attribute)
    with pytest.raises(UnsafeModelError, match="other files"):
        check_model(model.SerializeToString())


@pytest.mark.parametrize("location", [1, 1 + 2**32, 2, 2**63 + 1])
def test_a_location_counts_as_protobuf_cuts_it(location):
    tensor = varint(14 << 3) + varint(location)
    with pytest.raises(UnsafeModelError, match="other files"):
        check_model(field(GRAPH, field(5, tensor)))


READ = {
    "ModelProto": onnx_read.MODEL,
    "TrainingInfoProto": onnx_read.TRAINING,
    "FunctionProto": onnx_read.FUNCTION,
    "GraphProto": onnx_read.GRAPH,
    "NodeProto": onnx_read.NODE,
    "AttributeProto": onnx_read.ATTRIBUTE,
    "SparseTensorProto": onnx_read.SPARSE,
    "TensorProto": onnx_tensor.TENSOR,
    "ValueInfoProto": onnx_read.VALUE_INFO,
    "OperatorSetIdProto": onnx_read.OPSET,
}


def wire_of(one) -> int:
    kinds = {one.TYPE_FLOAT: FIXED32, one.TYPE_DOUBLE: FIXED64}
    lengthy = {one.TYPE_STRING, one.TYPE_BYTES, one.TYPE_MESSAGE}
    return WIRE_BYTES if one.type in lengthy else kinds.get(one.type, VARINT)


@pytest.mark.parametrize("name", READ)
def test_the_reader_knows_every_field_of_what_it_reads(name):
    """Held against the onnx package's own description of the format."""
    shape, message = READ[name], getattr(onnx, name).DESCRIPTOR
    there = {one.number: one for one in message.fields}
    # Reserved numbers that old files use may be known besides.
    assert set(there) <= set(shape.wires)
    assert {number: wire_of(one) for number, one in there.items()} == {
        number: shape.wires[number] for number in there
    }
    many = {number for number, one in there.items() if one.is_repeated}
    assert many == shape.many & set(there)


def test_every_way_to_a_tensor_leads_through_what_is_read():
    seen: dict[str, Descriptor] = {}
    todo = [onnx.ModelProto.DESCRIPTOR]
    while todo:
        message = todo.pop()
        if message.full_name not in seen:
            seen[message.full_name] = message
            todo += [f.message_type for f in message.fields if f.message_type]
    reaching = {"onnx.TensorProto"}
    while grown := {
        name
        for name, message in seen.items()
        if name not in reaching
        and any(f.message_type and f.message_type.full_name in reaching for f in message.fields)
    }:
        reaching |= grown
    assert {name.removeprefix("onnx.") for name in reaching} <= set(READ)


def test_graphs_in_graphs_end_somewhere():
    body = b""
    for _ in range(40):
        body = field(1, field(5, field(6, body)))
    with pytest.raises(UnsafeModelError, match="too deep"):
        check_model(field(GRAPH, body))


def test_honest_models_pass_padded_or_not():
    check_model(linear_onnx())
    model = onnx.load_from_string(linear_onnx())
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    padded = model.SerializeToString() + field(GRAPH, graph, pad_tag=1, pad_size=2)
    check_model(padded)
    session = ort.InferenceSession(padded, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": samples(2)})[0].shape == (2, CLASSES)
    assert session.get_inputs()[0].shape == ["n", FEATURES]
