"""Which part of a base each run of a target's chunks is best made from: pure.

Files of one model hold the same tensors in the same order. Where nothing before them changed
its length they lie at the same offset, else a little further on. So each chunk is compared with
the base at a few shifts: none, that of the chunk before it, and those that anchors tell. An anchor
is a run of 16 bytes that occurs once in the base and in the target too (names and shapes of tensors
survive when every weight has changed). Anchors are sampled by their own hash, so that an
insertion moves none of them out of the sample (as in content-defined chunking: Muthitacharoen et
al., LBFS, SOSP 2001). A chunk is compared by the entropy of the differences of its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.patch import MAX_SLICE_BYTES
from schemas.transfer import CHUNK_BYTES, chunk_count

Bytes = NDArray[np.uint8]

RUN_CHUNKS = 8
"""Chunks of a frame. Few, because the tensors within begin at different offsets."""

MARGIN = 128 * 1024
"""Bytes of the base before and after a slice that serves as a dictionary."""

_GRAM = 16
_BLOCK = 1 << 20
_MAX_ANCHORS = 1 << 20
_SHIFTS = 3
_SUPPORT = 0.1
_NOISE = 7.9
"""Bits a byte: differences of more have nothing in common with the base."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive chunks of the target, and where in the base what they are made of lies.

    offset: of a slice as long as the run, to which differences are added; None: there is none.
    dictionary: start and end of the slice in which their strings may be found.
    """

    first: int
    chunks: int
    offset: int | None
    dictionary: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Place:
    """Of one chunk. shift: base offset less target offset. mixed: parts of it have others."""

    shift: int | None
    mixed: tuple[int, ...] = ()


def rank(leaves: Sequence[bytes], bases: Mapping[str, Sequence[bytes]]) -> tuple[str, ...]:
    """The bases, the most promising first: by chunks in common, then by likeness in size.

    Args:
        leaves: the chunk digests of the target.
        bases: the same of each base.
    """
    wanted, count = set(leaves), len(leaves)

    def merit(base: str) -> tuple[int, int, str]:
        found = bases[base]
        return -len(wanted.intersection(found)), abs(len(found) - count), base

    return tuple(sorted(bases, key=merit))


def runs(base: Bytes, target: Bytes) -> tuple[Run, ...]:
    """Cut a target into runs; every chunk is in exactly one.

    Args:
        base: the bytes of a file that devices hold.
        target: the bytes of the one that they want; not empty.
    """
    places = _places(base, target)
    found: list[Run] = []
    first = 0
    while first < len(places):
        end = first + 1
        if not places[first].mixed:
            same = places[first]
            while end < min(len(places), first + RUN_CHUNKS) and places[end] == same:
                end += 1
        found.append(_run(first, end, places[first], len(base), len(target)))
        first = end
    return tuple(found)


def _run(first: int, end: int, place: _Place, base_size: int, target_size: int) -> Run:
    start, stop = first * CHUNK_BYTES, min(end * CHUNK_BYTES, target_size)
    shifts = [*place.mixed, place.shift or 0]
    low = max(0, min(base_size, start + min(shifts) - MARGIN))
    high = max(low, min(base_size, stop + max(shifts) + MARGIN, low + MAX_SLICE_BYTES))
    offset = None if place.shift is None else start + place.shift
    return Run(first, end - first, offset, (low, high))


def _places(base: Bytes, target: Bytes) -> list[_Place]:
    """Where each chunk is best made from, in their order."""
    count = chunk_count(len(target))
    told = _anchored(base, target, count)
    nearest = list(_following(told, count))
    common = (0, len(base) - len(target))
    found: list[_Place] = []
    before: int | None = None
    for index in range(count):
        own = told.get(index, ())
        shifts = dict.fromkeys((*(() if before is None else (before,)), *own, *nearest[index]))
        shift = _best(base, target, index, (*shifts, *common))
        before = before if shift is None else shift
        found.append(_Place(shift, own if len(own) > 1 else ()))
    return found


def _best(base: Bytes, target: Bytes, index: int, shifts: Iterable[int]) -> int | None:
    """The shift at which the differences tell the least; None when they tell all."""
    start = index * CHUNK_BYTES
    wanted = target[start : start + CHUNK_BYTES]
    best, least = None, _NOISE
    for shift in dict.fromkeys(shifts):
        if not 0 <= start + shift <= len(base) - len(wanted):
            continue
        cost = _entropy(wanted - base[start + shift : start + shift + len(wanted)])
        if cost < least:
            best, least = shift, cost
        if cost == 0:
            break
    return best


def _entropy(differences: Bytes) -> float:
    """Bits a byte, as if each stood alone (Shannon)."""
    counts = np.bincount(differences, minlength=256)
    share = counts[counts > 0] / len(differences)
    return max(0.0, float(-(share * np.log2(share)).sum()))


def _following(told: Mapping[int, tuple[int, ...]], count: int) -> Iterator[tuple[int, ...]]:
    """For each chunk, the shifts of the nearest one from it on that has anchors."""
    found: list[tuple[int, ...]] = []
    last: tuple[int, ...] = ()
    for index in reversed(range(count)):
        last = told.get(index, last)
        found.append(last)
    return reversed(found)


def _anchored(base: Bytes, target: Bytes, count: int) -> dict[int, tuple[int, ...]]:
    """Chunk → the shifts that its anchors tell, the most frequent first."""
    rarity = max(4, (max(len(base), len(target)) // _MAX_ANCHORS).bit_length())
    hashes, at = _grams(base, rarity)
    order = np.argsort(hashes, kind="stable")
    hashes, at = hashes[order], at[order]
    alone = np.ones(len(hashes), bool)  # what occurs twice tells no place
    alone[1:] &= hashes[1:] != hashes[:-1]
    alone[:-1] &= hashes[:-1] != hashes[1:]
    hashes, at = hashes[alone], at[alone]
    if not len(hashes):
        return {}
    wanted, where = _grams(target, rarity)
    slots = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
    same = hashes[slots] == wanted
    shifts, chunks = at[slots[same]] - where[same], where[same] // CHUNK_BYTES
    borders = np.searchsorted(chunks, np.arange(count + 1))
    parts = ((index, shifts[borders[index] : borders[index + 1]]) for index in range(count))
    return {index: _frequent(part) for index, part in parts if len(part)}


def _frequent(shifts: NDArray[np.int64]) -> tuple[int, ...]:
    values, counts = np.unique(shifts, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_SHIFTS]
    enough = counts[order] >= max(1, _SUPPORT * len(shifts))
    return tuple(int(value) for value in values[order][enough])


def _grams(data: Bytes, rarity: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes and positions of those 16-byte strings whose hash begins with ``rarity`` zeros."""
    hashes: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    positions: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    for start in range(0, len(data), _BLOCK):
        words = _words(data[start : start + _BLOCK + _GRAM - 1])
        one, two = words[:-8], words[8:]
        if not len(one):
            break
        mixed = one * np.uint64(0x9E3779B97F4A7C15) + two * np.uint64(0xC2B2AE3D27D4EB4F)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        # A string that repeats itself (zeros, mostly) is everywhere.
        chosen = np.flatnonzero((mixed >> np.uint64(64 - rarity) == 0) & (one != two))
        hashes.append(mixed[chosen])
        positions.append(chosen.astype(np.int64) + start)
    return np.concatenate(hashes), np.concatenate(positions)


def _words(data: Bytes) -> NDArray[np.uint64]:
    """The 8 bytes from each position on, as one integer."""
    count = max(0, len(data) - 7)
    words = np.empty(count, np.uint64)
    for phase in range(min(8, count)):
        whole = (len(data) - phase) // 8 * 8
        words[phase::8] = np.ascontiguousarray(data[phase : phase + whole]).view("<u8")
    return words
