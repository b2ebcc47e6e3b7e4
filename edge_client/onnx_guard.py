"""Refuse models that read other files.

onnxruntime resolves external tensor data relative to the working directory when a
model is loaded from memory, so a signed model could pull in bytes that nobody signed.
This walks the protobuf wire format (no onnx package on a device) and finds tensors
with ``data_location`` EXTERNAL or ``external_data``, at any depth. It must see every
field that onnxruntime's parser sees: where the two could read the same bytes
differently (tags cut to 32 bits, overlong lengths, groups), the model is refused.
Field numbers: onnx.proto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_client.errors import LoadError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10
_LONGEST_SHORT = 5
"""Bytes of a tag or a length at most; longer ones are malformed for C++ too."""
_TAG_END = 2**32
"""C++ keeps the low 32 bits of a tag: a larger one is another field there than here."""
_LENGTH_END = 2**31
_MAX_DEPTH = 64
"""Below protobuf's own limit of 100."""
_ORT_MAGIC = b"ORTM"
"""At byte 4 it makes onnxruntime read a flatbuffer instead, even of valid protobuf."""

# message → {field: message it holds}; exactly those from which a tensor can be reached
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def refuse_external_data(model: bytes) -> None:
    """Check a serialized model.

    Raises:
        LoadError: it names external data, or is not a well-formed protobuf message.
    """
    if model[4:8] == _ORT_MAGIC:
        msg = "the model is in onnxruntime's own format; export it as ONNX"
        raise LoadError(msg)
    _walk("model", memoryview(model), 0)


def _walk(kind: str, message: memoryview, depth: int) -> None:
    """Check a message and what it holds. A field that comes again is checked again."""
    if depth > _MAX_DEPTH:
        msg = "the model nests graphs too deep"
        raise LoadError(msg)
    children = _CHILDREN[kind]
    for field, value in _fields(message):
        if kind == "tensor":
            if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0):
                msg = "the model keeps tensors in other files; export it as a single file"
                raise LoadError(msg)
        elif isinstance(value, memoryview) and (child := children.get(field)):
            _walk(child, value, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
    """Each field with its number; None stands for a fixed-size value."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at, longest=_LONGEST_SHORT, end=_TAG_END)
        field, wire = tag >> 3, tag & 7
        if field == 0:
            raise _malformed()
        if wire == _VARINT:
            number, at = _varint(message, at, longest=_LONGEST_VARINT, end=None)
            yield field, number
            continue
        if wire == _BYTES:
            size, at = _varint(message, at, longest=_LONGEST_SHORT, end=_LENGTH_END)
        elif wire in _FIXED_SIZES:
            size = _FIXED_SIZES[wire]
        else:  # groups, which ONNX has none of, and what is no wire type
            raise _malformed()
        if at + size > len(message):
            raise _malformed()
        yield field, message[at : at + size] if wire == _BYTES else None
        at += size


def _varint(message: memoryview, at: int, *, longest: int, end: int | None) -> tuple[int, int]:
    """A number below ``end`` in at most ``longest`` bytes (it may be padded), and what follows."""
    value = 0
    for shift in range(0, 7 * longest, 7):
        if at >= len(message):
            raise _malformed()
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            if end is not None and value >= end:
                raise _malformed()
            return value, at
    raise _malformed()


def _malformed() -> LoadError:
    return LoadError("the model is not a well-formed ONNX file")
