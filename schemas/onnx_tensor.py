"""Tensors of an ONNX file: whether the bytes are there that their shapes promise.

onnxruntime resolves external tensor data relative to the working directory when a model is
loaded from memory, so a signed model could pull in bytes that nobody signed: refused.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from schemas.onnx_wire import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    Reader,
    Shape,
    UnsafeModelError,
    Value,
    count_packed,
    malformed,
    packed,
    signed,
)

MAX_RANK = 64
MAX_NAME = 16 * 1024
SMALL = 64
"""Elements of a constant whose values are looked at: shapes, counts and conditions have few."""

_FLOATS, _INTS, _STRINGS, _LONGS, _RAW, _DOUBLES, _UNSIGNED = 4, 5, 6, 7, 9, 10, 11
_EXTERNAL, _LOCATION = 13, 14
_STRING = 8

TENSOR = Shape(
    "tensor",
    {
        **dict.fromkeys((1, 2, 5, 7, 11, 14), VARINT),
        **dict.fromkeys((3, 6, 8, 9, 12, 13, 16), BYTES),
        4: FIXED32,
        10: FIXED64,
    },
    frozenset({1, 4, 5, 6, 7, 10, 11, 13, 16}),
)
_ENTRY = Shape("entry", {1: BYTES, 2: BYTES})

# data type → bits of an element
_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64,
    14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2,
    26: 2, 27: 6, 28: 6,
}  # fmt: skip
# data type → the field that may hold its values instead of raw data, all others: _INTS
_TYPED = {1: _FLOATS, 14: _FLOATS, 7: _LONGS, 11: _DOUBLES, 15: _DOUBLES, 12: _UNSIGNED,
          13: _UNSIGNED, 8: _STRINGS}  # fmt: skip
_TWO_EACH = frozenset({14, 15})
"""Complex numbers are kept as two."""
_FORMATS = {1: "f", 2: "B", 3: "b", 4: "H", 5: "h", 6: "i", 7: "q", 9: "?", 10: "e", 11: "d",
            12: "I", 13: "Q"}  # fmt: skip


@dataclass(slots=True)
class Tensor:
    """values: of a small tensor of numbers, where they can be read; else None."""

    name: str = ""
    dtype: int = 0
    dims: tuple[int, ...] = ()
    values: tuple[float, ...] | None = None

    @property
    def elements(self) -> int:
        """Their number."""
        return math.prod(self.dims)


@dataclass(slots=True)
class _Data:
    """Where the values are. counts: entries by field; small: the bytes of a short one."""

    raw: memoryview | None
    counts: dict[int, int]
    small: dict[int, list[float]]


def collect(reader: Reader, message: memoryview) -> Tensor:
    """Read and check a tensor.

    Raises:
        UnsafeModelError: it names other files, its shape is none, or the bytes are not there.
    """
    found, dims = Tensor(), list[int]()
    data = _Data(None, {}, {})
    for number, value in reader.read(TENSOR, message):
        if number == 1:
            add_dims(dims, value)
        elif number == 2 and isinstance(value, int):  # noqa: PLR2004 - onnx.proto's number
            found.dtype = value
        elif number == 8:  # noqa: PLR2004 - likewise
            found.name = text(value)
        elif number == _RAW and isinstance(value, memoryview):
            data.raw = value
        elif number == _EXTERNAL or (number == _LOCATION and value != 0):
            raise _outside(reader, value)
        elif number in {_FLOATS, _INTS, _STRINGS, _LONGS, _DOUBLES, _UNSIGNED}:
            _count(data, number, value)
    found.dims = tuple(dims)
    _check(found, data)
    found.values = _small(found, data)
    return found


def add_dims(dims: list[int], value: Value) -> None:
    """Add one dimension, or many packed ones."""
    dims += [
        signed(n) for n in ([value] if isinstance(value, int) else packed(value, MAX_RANK + 1))
    ]
    if len(dims) > MAX_RANK:
        msg = f"a tensor has more than {MAX_RANK} dimensions"
        raise UnsafeModelError(msg)


def _outside(reader: Reader, value: Value) -> UnsafeModelError:
    """What to say of a tensor that lies elsewhere."""
    said: dict[int, str] = {}
    if isinstance(value, memoryview):
        said = {number: text(part) for number, part in reader.read(_ENTRY, value)}
    named = f" ({shown(said.get(2, ''))})" if said.get(1) == "location" else ""
    msg = f"the model keeps tensors in other files{named}; export it as a single file"
    return UnsafeModelError(msg)


def _count(data: _Data, number: int, value: Value) -> None:
    size = {_FLOATS: 4, _DOUBLES: 8}.get(number)
    if number == _STRINGS or isinstance(value, int):
        entries = 1
    elif size is not None:
        if len(value) % size:
            raise malformed()
        entries = len(value) // size
    else:
        entries = count_packed(value)
    before = data.counts.get(number, 0)
    data.counts[number] = before + entries
    if before + entries <= SMALL and number != _STRINGS:
        data.small.setdefault(number, []).extend(_decoded(number, value))


def _decoded(number: int, value: Value) -> list[float]:
    if isinstance(value, int):
        return [signed(value)]
    if number in {_FLOATS, _DOUBLES}:
        return [one for (one,) in struct.iter_unpack("<f" if number == _FLOATS else "<d", value)]
    return [signed(one) for one in packed(value, SMALL)]


def _check(tensor: Tensor, data: _Data) -> None:
    """The bytes must be exactly those that shape and type ask for."""
    where = f"the tensor {shown(tensor.name)}"
    if any(size < 0 for size in tensor.dims):
        msg = f"{where} has a negative size: {_few(tensor.dims)}"
        raise UnsafeModelError(msg)
    bits = _BITS.get(tensor.dtype)
    if bits is None and tensor.dtype != _STRING:
        msg = f"{where} is of an unknown type ({tensor.dtype})"
        raise UnsafeModelError(msg)
    if len(data.counts) + (data.raw is not None) > 1:
        msg = f"{where} says its values twice"
        raise UnsafeModelError(msg)
    n = tensor.elements
    if data.raw is not None and bits is not None:
        needed, there, unit = (n * bits + 7) // 8, len(data.raw), "bytes"
    else:
        field = _TYPED.get(tensor.dtype, _INTS)
        if data.raw is not None or any(number != field for number in data.counts):
            msg = f"{where} keeps its values where its type does not"
            raise UnsafeModelError(msg)
        needed, there, unit = n, data.counts.get(field, 0), "values"
        if tensor.dtype in _TWO_EACH:
            needed = 2 * n
        elif bits is not None and bits < 8:  # noqa: PLR2004 - several in a byte
            needed = (n * bits + 7) // 8
    if needed != there:
        msg = f"{where} of shape {_few(tensor.dims)} needs {needed:,} {unit} and has {there:,}"
        raise UnsafeModelError(msg)


def _small(tensor: Tensor, data: _Data) -> tuple[float, ...] | None:
    """The values of a small tensor of numbers."""
    form = _FORMATS.get(tensor.dtype)
    if form is None or not 0 < tensor.elements <= SMALL:
        return None
    if data.raw is not None:
        return tuple(one for (one,) in struct.iter_unpack(f"<{form}", data.raw))
    if form == "e":  # half floats are kept as the bits of integers
        return None
    return tuple(data.small.get(_TYPED.get(tensor.dtype, _INTS), ()))


def text(value: Value) -> str:
    """A name.

    Raises:
        UnsafeModelError: it is longer than any name is.
    """
    if isinstance(value, int):
        raise malformed()
    if len(value) > MAX_NAME:
        msg = f"a name in the model has {len(value):,} bytes"
        raise UnsafeModelError(msg)
    return bytes(value).decode("utf-8", "surrogateescape")


def shown(name: str) -> str:
    """A name from a file for a person's eyes: short, on one line, and without tricks."""
    plain = "".join(c if c.isprintable() and not "\ud800" <= c <= "\udfff" else "?" for c in name)
    return repr(plain if len(plain) <= 80 else plain[:77] + "...")  # noqa: PLR2004 - characters


def _few(dims: tuple[int, ...]) -> str:
    shown_dims = ", ".join(str(size) for size in dims[:8])
    return f"[{shown_dims}{', ...' if len(dims) > 8 else ''}]"  # noqa: PLR2004 - enough to see
