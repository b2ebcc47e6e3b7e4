"""Refuse models that read other files.

onnxruntime resolves external tensor data relative to the working directory when a
model is loaded from memory, so a signed model could pull in bytes that nobody signed.
This walks the protobuf wire format (no onnx package on a device) and finds tensors
with ``data_location`` EXTERNAL or ``external_data``, at any depth.
Field numbers: onnx.proto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_client.errors import LoadError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 64

# message → {field: message it holds}
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def refuse_external_data(model: bytes) -> None:
    """Check a serialized model.

    Raises:
        LoadError: it names external data, or is not a well-formed protobuf message.
    """
    view = memoryview(model)
    todo: list[tuple[str, memoryview, int]] = [("model", view, 0)]
    while todo:
        kind, message, depth = todo.pop()
        if depth > _MAX_DEPTH:
            msg = "the model nests graphs too deep"
            raise LoadError(msg)
        for field, value in _fields(message):
            if kind == "tensor":
                if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0):
                    msg = "the model keeps tensors in other files; export it as a single file"
                    raise LoadError(msg)
            elif isinstance(value, memoryview) and (child := _CHILDREN[kind].get(field)):
                todo.append((child, value, depth + 1))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield field, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in {_FIXED64, _FIXED32}:
            size = 8 if wire == _FIXED64 else 4
        else:
            raise _malformed()
        if at + size > len(message):
            raise _malformed()
        yield field, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise _malformed()
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            return value, at
    raise _malformed()


def _malformed() -> LoadError:
    return LoadError("the model is not a well-formed ONNX file")
