"""Protobuf's wire format, read so that no other parser can read it otherwise.

A model file is checked before any library opens it, so the check must see every field that
the library's parser sees. Where two parsers could read the same bytes differently (tags cut
to 32 bits, overlong lengths, groups, a field of another wire type, a single field twice),
the bytes are refused. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10
_LONGEST_SHORT = 5
"""Bytes of a tag or a length at most; longer ones are malformed for C++ too."""
_TAG_END = 2**32
"""C++ keeps the low 32 bits of a tag: a larger one is another field there than here."""
_LENGTH_END = 2**31
_LAST_BYTE = 0x80
"""The last byte of a varint is below."""
_COUNT_BLOCK = 1024 * 1024
_CUT = "it ends early, or a part is longer than what holds it"
_NOT_LAST = bytes(range(_LAST_BYTE, 256))

MAX_FIELDS = 2_000_000
"""Fields that are looked at: an honest file of 500 MB has far fewer, bulk lies in few of them."""

Value = int | memoryview
"""Of a field: a number, or bytes; those of a fixed size too."""


class UnsafeModelError(ValueError):
    """Why a model file is not opened, in one line that says what to do where that helps."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a message's fields are. wires: each known field's wire type. many: repeated ones."""

    name: str
    wires: Mapping[int, int]
    many: frozenset[int] = frozenset()


@dataclass(slots=True)
class Reader:
    """Reads messages, and counts what it has read. left: fields that may still come."""

    left: int = MAX_FIELDS

    def read(self, shape: Shape, message: memoryview) -> Iterator[tuple[int, Value]]:
        """The known fields of a message, by number; repeated scalars may come packed.

        Raises:
            UnsafeModelError: it is malformed, ambiguous, or has too many fields.
        """
        wires, many, seen = shape.wires, shape.many, 0
        at, end = 0, len(message)
        while at < end:
            self.left -= 1
            if self.left < 0:
                msg = f"the model has more than {MAX_FIELDS:,} parts"
                raise UnsafeModelError(msg)
            tag, at = _varint(message, at, longest=_LONGEST_SHORT, limit=_TAG_END)
            number, wire = tag >> 3, tag & 7
            value, at = self._value(message, at, wire)
            known = wires.get(number)
            if known is None:
                if number == 0:
                    raise malformed()
                continue
            if number not in many:
                if seen >> number & 1:
                    msg = f"the model says field {number} of a {shape.name} twice: which counts?"
                    raise UnsafeModelError(msg)
                seen |= 1 << number
            elif wire == BYTES:
                known = BYTES  # packed
            if wire != known:
                raise malformed()
            yield number, value

    def _value(self, message: memoryview, at: int, wire: int) -> tuple[Value, int]:
        """A field's value, and where the next begins."""
        if wire == VARINT:
            return _varint(message, at, longest=_LONGEST_VARINT, limit=None)
        if wire == BYTES:
            size, at = _varint(message, at, longest=_LONGEST_SHORT, limit=_LENGTH_END)
        elif wire in _FIXED_SIZES:
            size = _FIXED_SIZES[wire]
        else:  # groups, which ONNX has none of, and what is no wire type
            raise malformed()
        if at + size > len(message):
            raise malformed(_CUT)
        return message[at : at + size], at + size


def signed(number: int) -> int:
    """An int64 of a varint, as protobuf cuts it."""
    number &= 2**64 - 1
    return number - 2**64 if number >= 2**63 else number


def count_packed(data: memoryview) -> int:
    """How many varints lie in a packed field, in one fast pass."""
    if data and data[-1] >= _LAST_BYTE:
        raise malformed()
    blocks = range(0, len(data), _COUNT_BLOCK)
    return sum(len(bytes(data[at : at + _COUNT_BLOCK]).translate(None, _NOT_LAST)) for at in blocks)


def packed(data: memoryview, most: int) -> list[int]:
    """The first varints of a packed field, at most so many."""
    found, at = list[int](), 0
    while at < len(data) and len(found) < most:
        number, at = _varint(data, at, longest=_LONGEST_VARINT, limit=None)
        found.append(number)
    return found


def malformed(why: str = "") -> UnsafeModelError:
    """What to raise for bytes that are no ONNX."""
    return UnsafeModelError(
        "the model is not a well-formed ONNX file" + (f": {why}" if why else "")
    )


def _varint(message: memoryview, at: int, *, longest: int, limit: int | None) -> tuple[int, int]:
    """A number below ``limit`` in at most ``longest`` bytes, padded or not, and what follows."""
    if at < len(message) and (byte := message[at]) < _LAST_BYTE:  # most are of one byte
        return byte, at + 1
    value = 0
    for shift in range(0, 7 * longest, 7):
        if at >= len(message):
            raise malformed(_CUT)
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _LAST_BYTE:
            if limit is not None and value >= limit:
                raise malformed()
            return value, at
    raise malformed()
