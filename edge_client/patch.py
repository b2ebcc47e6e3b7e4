"""Applies a patch: the chunks of a file from one that is here, frame by frame (``schemas.patch``).

Nobody signed a patch, so nothing of it is believed: every size is checked before anything is
decompressed, and every chunk by who writes it. It takes the memory of one frame, at most 16 MiB.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from edge_client.errors import PatchError
from schemas.patch import (
    FRAME_BYTES,
    HEADER_BYTES,
    MAX_WINDOW_LOG,
    FrameHeader,
    Method,
    PatchHeader,
    decode_frame,
    decode_header,
)
from schemas.transfer import CHUNK_BYTES, chunk_count

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_WRONG = 64
"""Chunks that do not fit, after which a patch that made no more than that is given up."""

_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}


@dataclass(frozen=True, slots=True)
class Applied:
    """What a patch gave. made: chunks that fitted. wrong: that did not, and are to be pulled."""

    made: int
    wrong: int


def apply(
    patch: BinaryIO,
    base: BinaryIO,
    *,
    wanted: Callable[[int], bool],
    write: Callable[[int, bytes], bool],
) -> Applied:
    """Make the chunks that are wanted. What was written before an error is as good as any.

    Args:
        patch: a file at its beginning.
        base: the file that it is for.
        wanted: whether a chunk is still missing; frames of which none is are skipped.
        write: takes a chunk's number and bytes, checks its digest and writes it; answers
            whether it fitted. What it raises goes through.

    Raises:
        PatchError: the patch is damaged, is none, or is for another base.
        OSError: one of the files cannot be read.
    """
    header = _header(patch, base)
    patch_size, made, wrong, after = _size(patch), 0, 0, 0
    for number in range(header.frames):
        frame = _frame(patch, header, number, after)
        after = frame.end
        if patch.tell() + frame.data_bytes > patch_size:
            raise _damaged(number, "is cut off")
        missing = [index for index in range(frame.first, frame.end) if wanted(index)]
        if not missing:
            patch.seek(frame.data_bytes, os.SEEK_CUR)
            continue
        result = _result(patch, base, header, frame, number)
        for index in missing:
            at = (index - frame.first) * CHUNK_BYTES
            if write(index, result[at : at + CHUNK_BYTES]):
                made += 1
            else:
                wrong += 1
        if wrong >= MAX_WRONG and wrong >= made:
            msg = f"the patch does not fit: {wrong} of the {made + wrong} chunks that it made"
            raise PatchError(msg)
    if patch.tell() != patch_size:
        msg = "the patch goes on after its last frame"
        raise PatchError(msg)
    return Applied(made, wrong)


def _header(patch: BinaryIO, base: BinaryIO) -> PatchHeader:
    header = decode_header(patch.read(HEADER_BYTES))
    if header is None:
        msg = "this is no patch, or one of another version"
        raise PatchError(msg)
    size = _size(base)
    if size != header.base_size:
        msg = f"the patch is for a file of {header.base_size} bytes, not of {size}"
        raise PatchError(msg)
    return header


def _frame(patch: BinaryIO, header: PatchHeader, number: int, after: int) -> FrameHeader:
    """Read the next frame's header. after: the chunk after those of the frame before."""
    frame = decode_frame(patch.read(FRAME_BYTES))
    if frame is None:
        raise _damaged(number, "is cut off or breaks a limit")
    if frame.first < after or frame.end > chunk_count(header.target_size):
        raise _damaged(number, "makes chunks that are not its to make")
    if frame.base_offset + frame.base_bytes > header.base_size:
        raise _damaged(number, "reads beyond the end of its base")
    return frame


def _result(
    patch: BinaryIO, base: BinaryIO, header: PatchHeader, frame: FrameHeader, number: int
) -> bytes:
    """What a frame makes; reads its data."""
    start = frame.first * CHUNK_BYTES
    size = min(frame.end * CHUNK_BYTES, header.target_size) - start
    if frame.method and frame.base_bytes != size:
        raise _damaged(number, "names a slice of another length than it makes")
    data = patch.read(frame.data_bytes)
    base.seek(frame.base_offset)
    piece = base.read(frame.base_bytes)
    if len(data) != frame.data_bytes or len(piece) != frame.base_bytes:
        raise _damaged(number, "ends early, or so does its base")
    try:
        plain = _decompress(data, size, piece if not frame.method else b"")
    except zstd.ZstdError as error:
        raise _damaged(number, f"has damaged data: {error}") from None
    if plain is None:
        raise _damaged(number, f"does not decompress to the {size} bytes that it is to make")
    return _added(plain, piece, frame.method, frame.lead) if frame.method else plain


def _decompress(data: bytes, size: int, dictionary: bytes) -> bytes | None:
    """The content of exactly one zstd frame that states this size; None when it is not that."""
    if zstd.get_frame_info(data).decompressed_size != size:
        return None
    raw = zstd.ZstdDict(dictionary, is_raw=True).as_prefix if dictionary else None
    unpacking = zstd.ZstdDecompressor(zstd_dict=raw, options=_OPTIONS)
    plain = unpacking.decompress(data, size + 1)
    whole = unpacking.eof and not unpacking.unused_data and len(plain) == size
    return plain if whole else None


def _added(plain: bytes, piece: bytes, width: Method, lead: int) -> bytes:
    """The slice plus its differences, which come as byte planes."""
    plain_bytes, base_bytes = np.frombuffer(plain, np.uint8), np.frombuffer(piece, np.uint8)
    count = max(0, len(piece) - lead) // width
    end = lead + count * width
    made = plain_bytes + base_bytes  # right before the lead's end and after the planes
    if count and width is not Method.DIFF1:
        planes = plain_bytes[lead:end].reshape(width, count)
        integers = np.array(planes.T, order="C").view(f"<u{int(width)}").reshape(count)
        integers += np.frombuffer(piece, integers.dtype, count, lead)
        made[lead:end] = integers.view(np.uint8)
    return made.tobytes()


def _size(file: BinaryIO) -> int:
    at = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(at)
    return size


def _damaged(number: int, why: str) -> PatchError:
    return PatchError(f"frame {number} of the patch {why}")
