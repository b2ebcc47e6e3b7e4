"""The smallest ONNX file that is one, written without a library."""

from __future__ import annotations

_IR, _DOC, _GRAPH, _OPSETS = 1, 6, 7, 8


def tiny_onnx(content: bytes, operator: bytes = b"Identity") -> bytes:
    """A model of one node. content: makes it another file than others."""
    value = _field(1, b"x")
    node = _field(1, b"x") + _field(2, b"y") + _field(4, operator)
    graph = _field(1, node) + _field(2, b"g") + _field(11, value) + _field(12, _field(1, b"y"))
    opset = _field(1, b"") + bytes([2 << 3, 20])
    return (
        bytes([_IR << 3, 10])
        + _field(_DOC, content)
        + _field(_GRAPH, graph)
        + _field(_OPSETS, opset)
    )


def _field(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    last = number < 0x80
    return bytes([number]) if last else bytes([number & 0x7F | 0x80]) + _varint(number >> 7)
