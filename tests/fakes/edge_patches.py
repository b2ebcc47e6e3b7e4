"""Patches made in the simplest way that the format allows."""

from __future__ import annotations

from backports import zstd

from schemas.patch import FrameHeader, Method, PatchHeader, encode_frame, encode_header
from schemas.transfer import CHUNK_BYTES
from tests.fakes.edge_models import blocks


def patch_of(base: bytes, target: bytes, *, first: int = 0, chunks: int | None = None) -> bytes:
    """A patch of one frame for each 16 chunks, with slices of the base as dictionary."""
    parts, frames, body = blocks(target), 0, b""
    last = len(parts) if chunks is None else first + chunks
    for at in range(first, last, 16):
        count = min(16, last - at)
        piece = b"".join(parts[at : at + count])
        start = min(at * CHUNK_BYTES, len(base))
        piece_of_base = base[start : start + 16 * CHUNK_BYTES]
        options = {zstd.CompressionParameter.content_size_flag: 1}
        if piece_of_base:
            dictionary = zstd.ZstdDict(piece_of_base, is_raw=True)
            data = zstd.compress(piece, options=options, zstd_dict=dictionary.as_prefix)
        else:
            data = zstd.compress(piece, options=options)
        head = FrameHeader(at, count, Method.DICT, start, len(piece_of_base), len(data))
        body += encode_frame(head) + data
        frames += 1
    return encode_header(PatchHeader(frames, len(base), len(target))) + body
