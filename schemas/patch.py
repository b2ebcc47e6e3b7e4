"""Patches: a file from one that the device holds, as frames that each make a run of chunks.

Layout, big-endian: a header of 24 bytes (``AP``, version, 0, frames u32, base size u64, target
size u64), then the frames in ascending order of their chunks: 24 bytes (first chunk u32, chunks
u16, method u8, lead u8, base offset u64, base bytes u32, data bytes u32) and the data: one zstd
frame (RFC 8878) that states its content size, with a window of at most 8 MiB. Nothing follows the
last frame.

A frame makes ``chunks`` chunks of 64 KiB (the last of the file may be shorter), from the slice
of the base that it names:

* ``DICT``: the data decompress with the slice as raw-content dictionary; the slice may be empty
  (then without a dictionary), or has at least 8 bytes. ``lead`` is 0.
* ``DIFF1``, ``DIFF2``, ``DIFF4``: the slice is as long as the result. The data decompress to as
  many bytes: ``lead`` bytes (fewer than the width: weights in a file begin anywhere), then byte
  planes, then a rest that is shorter than the width. The planes are of little-endian integers of
  that width: first the lowest byte of each, then the next. They are added to the integers of the
  slice after its first ``lead`` bytes, modulo 2^(8 width); lead and rest are added byte by byte.

Frames do not overlap. A frame is limited so that a device needs little memory for it, and its data
are fewer bytes than it makes. Chunks that no frame makes, and those whose digest is not the signed
one, are pulled. That integer differences in byte planes beat binary diffs of weights was measured
(docs/architecture.md).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from schemas.transfer import CHUNK_BYTES

MAX_FRAME_CHUNKS = 32
"""2 MiB of the target."""

MAX_SLICE_BYTES = 4 * 1024 * 1024
MAX_FRAMES = 65_536
MAX_WINDOW_LOG = 23
"""Of a frame's data: 8 MiB."""

MIN_DICTIONARY_BYTES = 8
"""Shorter ones are none to zstd."""

_MAGIC = b"AP"
_VERSION = 1
_HEADER = struct.Struct(">2sBBIQQ")
_FRAME = struct.Struct(">IHBBQII")
HEADER_BYTES = _HEADER.size
FRAME_BYTES = _FRAME.size


class Method(IntEnum):
    """How a frame's data make its chunks."""

    DICT = 0
    DIFF1 = 1
    DIFF2 = 2
    DIFF4 = 4


@dataclass(frozen=True, slots=True)
class PatchHeader:
    """What a patch is of. Sizes in bytes."""

    frames: int
    base_size: int
    target_size: int


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """One frame: which chunks it makes, how, of which slice of the base.

    lead: bytes before the first integer.
    """

    first: int
    chunks: int
    method: Method
    base_offset: int
    base_bytes: int
    data_bytes: int
    lead: int = 0

    @property
    def end(self) -> int:
        """The chunk after those that it makes."""
        return self.first + self.chunks


def encode_header(header: PatchHeader) -> bytes:
    """The first ``HEADER_BYTES`` bytes of a patch."""
    return _HEADER.pack(_MAGIC, _VERSION, 0, header.frames, header.base_size, header.target_size)


def decode_header(data: bytes) -> PatchHeader | None:
    """Read a patch's first bytes; None when they are not of one, or of another version."""
    if len(data) != HEADER_BYTES:
        return None
    magic, version, _flags, frames, base_size, target_size = _HEADER.unpack(data)
    if magic != _MAGIC or version != _VERSION or frames > MAX_FRAMES:
        return None
    return PatchHeader(frames, base_size, target_size)


def encode_frame(frame: FrameHeader) -> bytes:
    """The ``FRAME_BYTES`` bytes before a frame's data."""
    return _FRAME.pack(
        frame.first,
        frame.chunks,
        frame.method,
        frame.lead,
        frame.base_offset,
        frame.base_bytes,
        frame.data_bytes,
    )


def decode_frame(data: bytes) -> FrameHeader | None:
    """Read the bytes before a frame's data; None when they break a limit."""
    if len(data) != FRAME_BYTES:
        return None
    first, chunks, method, lead, offset, base_bytes, data_bytes = _FRAME.unpack(data)
    if method not in set(Method) or not 0 < chunks <= MAX_FRAME_CHUNKS:
        return None
    if base_bytes > MAX_SLICE_BYTES or not 0 < data_bytes < chunks * CHUNK_BYTES:
        return None
    if lead >= max(1, method) or (not method and 0 < base_bytes < MIN_DICTIONARY_BYTES):
        return None
    return FrameHeader(first, chunks, Method(method), offset, base_bytes, data_bytes, lead)
