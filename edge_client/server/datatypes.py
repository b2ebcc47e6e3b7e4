"""Tensors as the Open Inference Protocol writes them: datatypes, bytes, JSON.

Names and layouts: https://github.com/kserve/open-inference-protocol (specification/protocol),
and the binary tensor data extension of Triton's protocol documents.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np

from edge_client.inference import Array
from edge_client.server.failures import invalid

BYTES = "BYTES"
MAX_NDIM = 8
MAX_SIDE = 2**40
_LONG = 2**64

_BY_DATATYPE = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_BY_DTYPE = {np.dtype(dtype): name for name, dtype in _BY_DATATYPE.items()}
_NUMPY = {name: np.dtype(dtype) for name, dtype in _BY_DATATYPE.items()}
_ELEMENT: dict[str, type] = {"b": bool, "u": int, "i": int, "f": float}
_LENGTH = struct.Struct("<I")


def datatype_of(dtype: np.dtype[Any]) -> str:
    """``FP32`` for float32."""
    return _BY_DTYPE[dtype]


def dtype_of(datatype: str, where: str) -> np.dtype[Any]:
    """The dtype of a datatype that holds numbers.

    Raises:
        RequestError: there is none of that name.
    """
    found = _NUMPY.get(datatype)
    if found is None:
        msg = f"{where} has datatype {datatype[:20]!r}; known are {', '.join(_NUMPY)} and BYTES"
        raise invalid(msg)
    return found


def elements(shape: Sequence[int], where: str) -> int:
    """How many elements a shape has.

    Raises:
        RequestError: it has too many dimensions, or one below 0.
    """
    if len(shape) > MAX_NDIM or min(shape, default=0) < 0 or max(shape, default=0) > MAX_SIDE:
        shown = [side if abs(side) < _LONG else "…" for side in shape[:16]]
        msg = f"{where} has shape {shown}: give at most {MAX_NDIM} sizes of 0 to {MAX_SIDE}"
        raise invalid(msg)
    if 0 in shape:
        msg = f"{where} has shape {list(shape)}: there is nothing to infer in it"
        raise invalid(msg)
    return math.prod(shape)


def from_bytes(data: memoryview, datatype: str, shape: Sequence[int], where: str) -> Array:
    """An array over little-endian, row-major bytes, without a copy.

    Raises:
        RequestError: the length is not what datatype and shape say.
    """
    dtype = dtype_of(datatype, where)
    expected = elements(shape, where) * dtype.itemsize
    if len(data) != expected:
        msg = f"{where}: {datatype} of shape {list(shape)} is {expected} bytes, not {len(data)}"
        raise invalid(msg)
    array = np.frombuffer(data, dtype).reshape(shape)
    # onnxruntime reads the memory as it is.
    return array if array.flags.aligned else array.copy()


def from_json(raw: msgspec.Raw, datatype: str, shape: Sequence[int], where: str) -> Array:
    """An array of the JSON ``data`` of a tensor: flat, or nested as its shape is.

    Raises:
        RequestError: it is not, or an element is not of the datatype.
    """
    dtype = dtype_of(datatype, where)
    expected = elements(shape, where)
    try:
        values = _decoder(_ELEMENT[dtype.kind], _depth(raw)).decode(raw)
        with np.errstate(over="ignore"):  # what becomes infinite is refused as such
            array = np.array(values, dtype)
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        msg = f"{where}: the data is no array of {datatype}: {_short(error)}"
        raise invalid(msg) from error
    if array.size != expected:
        msg = f"{where}: shape {list(shape)} has {expected} elements, the data has {array.size}"
        raise invalid(msg)
    return array.reshape(shape)


def texts_from_json(raw: msgspec.Raw, encoding: object, where: str) -> list[bytes]:
    """The elements of a BYTES tensor. encoding: ``"base64"``, or None for plain text.

    Raises:
        RequestError: they are no strings, or not in that encoding.
    """
    try:
        values = _decoder(str, _depth(raw)).decode(raw)
        flat = [text for row in values for text in row] if _depth(raw) > 1 else values
        if encoding == "base64":
            return [base64.b64decode(text, validate=True) for text in flat]
        return [text.encode() for text in flat]
    except (msgspec.MsgspecError, binascii.Error, ValueError, AttributeError) as error:
        msg = f"{where}: the data is no list of {encoding or 'strings'}: {_short(error)}"
        raise invalid(msg) from error


def texts_from_bytes(data: memoryview, where: str) -> list[bytes]:
    """The elements of a BYTES tensor, each after its length (4 bytes, little-endian).

    Raises:
        RequestError: a length goes beyond the end.
    """
    found, at = [], 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            break
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + size > len(data):
            break
        found.append(bytes(data[at : at + size]))
        at += size
    else:
        return found
    msg = f"{where}: an element of BYTES is longer than what is left of the data"
    raise invalid(msg)


def texts_to_bytes(texts: Sequence[bytes]) -> bytes:
    """BYTES as the binary extension writes them."""
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)


def to_bytes(array: Array) -> bytes:
    """Little-endian, row-major."""
    data: bytes = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return data


def _depth(raw: msgspec.Raw) -> int:
    """How many lists are open at the first element: 1 for a flat one."""
    head = bytes(memoryview(raw)[:64])
    opening = head[: len(head) - len(head.lstrip(b"[ \t\r\n"))]
    return min(max(opening.count(b"["), 1), MAX_NDIM)


@cache
def _decoder(element: type, depth: int) -> msgspec.json.Decoder[Any]:
    kind: Any = element
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
