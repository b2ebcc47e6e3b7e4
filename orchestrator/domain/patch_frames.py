"""How a run of chunks is made of a base in the fewest bytes: pure.

Differences of weights as little-endian integers, laid out in byte planes, hold their upper bytes
together, and these are nearly all 0 or 255 after a fine-tuning. The width and where the first
integer begins are tried with a fast compression; what wins is compressed well.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from orchestrator.domain.patch_plan import Bytes, Run
from schemas.patch import MAX_WINDOW_LOG, MIN_DICTIONARY_BYTES, FrameHeader, Method
from schemas.transfer import CHUNK_BYTES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FAST, WELL = 1, 15
"""zstd's levels. On a MobileNetV2's weights 19 took 4.6 times as long as 15 and saved 0.2 %."""

WORTH = 0.95
"""A frame of more than this share of what it makes is not worth its work."""

_SMALL = 0.02
_GOOD = 0.3
"""Differences that take less of what they make say that strings would do no better."""

_CLOSE = 1.05


def frame(run: Run, base: Bytes, target: Bytes) -> tuple[FrameHeader, bytes] | None:
    """The smallest frame that makes a run; None when its chunks may as well be pulled.

    Args:
        run: of ``patch_plan.runs`` for these two.
        base: the bytes of a file that devices hold.
        target: the bytes of the one that they want.
    """
    start = run.first * CHUNK_BYTES
    wanted = target[start : start + run.chunks * CHUNK_BYTES]
    found = []
    if run.offset is not None:
        found.append(_differences(run, run.offset, base, wanted))
    # A chunk alone is where something was inserted or taken away: its strings may be elsewhere.
    if not found or run.chunks == 1 or len(found[0][1]) > _GOOD * len(wanted):
        found.append(_strings(run, base, wanted))
    best = min(found, key=lambda one: len(one[1]))
    return best if len(best[1]) < WORTH * len(wanted) else None


def _differences(run: Run, offset: int, base: Bytes, wanted: Bytes) -> tuple[FrameHeader, bytes]:
    piece = base[offset : offset + len(wanted)]
    tried: list[tuple[int, Method, int, bytes]] = []
    for method, lead in _ways():
        plain = planes(piece, wanted, method, lead)
        tried.append((len(_compressed(plain, FAST)), method, lead, plain))
        if tried[-1][0] < _SMALL * len(wanted):
            break
    tried.sort(key=lambda one: one[0])
    first = tried[0]
    other = next((one for one in tried if one[1] != first[1] and one[0] < _CLOSE * first[0]), None)
    packed = [
        (_compressed(plain, WELL), method, lead)
        for _, method, lead, plain in ((first,) if other is None else (first, other))
    ]
    data, method, lead = min(packed, key=lambda one: len(one[0]))
    header = FrameHeader(run.first, run.chunks, method, offset, len(wanted), len(data), lead)
    return header, data


def _strings(run: Run, base: Bytes, wanted: Bytes) -> tuple[FrameHeader, bytes]:
    low, high = run.dictionary
    if high - low < MIN_DICTIONARY_BYTES:
        low = high = 0
    data = _compressed(wanted.tobytes(), WELL, base[low:high].tobytes())
    return FrameHeader(run.first, run.chunks, Method.DICT, low, high - low, len(data)), data


def _ways() -> Iterator[tuple[Method, int]]:
    for method in (Method.DIFF1, Method.DIFF4, Method.DIFF2):
        for lead in range(method):
            yield method, lead


def planes(piece: Bytes, wanted: Bytes, width: Method, lead: int) -> bytes:
    """The differences of two arrays of one length, as ``schemas.patch`` lays them out."""
    bytewise = wanted - piece
    count = max(0, len(wanted) - lead) // width
    if width is Method.DIFF1 or not count:
        return bytewise.tobytes()
    end = lead + count * width
    kind = np.dtype(f"<u{int(width)}")
    one, other = (np.ascontiguousarray(part[lead:end]).view(kind) for part in (wanted, piece))
    integers = (one - other).view(np.uint8).reshape(count, width)
    return b"".join((bytewise[:lead].tobytes(), integers.T.tobytes(), bytewise[end:].tobytes()))


def _compressed(plain: bytes, level: int, dictionary: bytes = b"") -> bytes:
    """One zstd frame that states its content size, which a call that ends it at once does."""
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.window_log: MAX_WINDOW_LOG,
    }
    raw = zstd.ZstdDict(dictionary, is_raw=True).as_prefix if dictionary else None
    return zstd.compress(plain, options=options, zstd_dict=raw)
