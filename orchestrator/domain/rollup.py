"""Windows added up: sums that merge in any order to the same, whatever was merged before.

Everything in a ``Sums`` is a sum, a maximum or a histogram of fixed bins, so that merging is
associative and commutative (a distributive or algebraic aggregate in the sense of Gray et al.,
"Data Cube", Data Mining and Knowledge Discovery 1, 1997), and quantiles of a year are as exact as
those of a window. Sums stop at the largest whole number that MessagePack has: min(a + b, most)
is associative too, so no device can make them overflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, count, zip_longest
from operator import add
from typing import NamedTuple

import msgspec

from schemas.telemetry import MAX_BUCKET, MAX_CLASSES
from schemas.window import Window

MOST = 2**64 - 1
"""Where sums stop."""

HOUR_MS = 3_600_000


class Kept(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A window as it is stored, with what its envelope said of it.

    bytes: its part of the envelope. moved: its time could not be true, and ours was taken.
    """

    window: Window
    provider: str = ""
    wanted: str = ""
    nodes: dict[str, int] = {}
    bytes: int = 0
    moved: bool = False


class DeviceHour(NamedTuple):
    """The key of what one device did in one hour; ``hour``: hours since 1970."""

    model: str
    version: int
    hour: int
    device: str
    role: str
    variant: str


class ClassHour(NamedTuple):
    """The key of what the devices of one class did in one hour."""

    model: str
    version: int
    hour: int
    device_class: str
    role: str
    variant: str


class Sums(msgspec.Struct, array_like=True, gc=False):
    """What windows add up to; the names of their figures are those of ``schemas.window``.

    moved: windows whose time was not believed. seconds are kept as length_ms. wire_bytes: of the
    envelopes. measured_mj, measured_n and estimated_mj, estimated_n: energy, with the samples that
    it was spent on. latency, queue, classes: by bucket or class. providers: samples by provider
    that ran them; wanted: of them, those where another one was asked for, by that one. nodes,
    rss_mib, celsius: the largest. New fields come last and have a default.
    """

    windows: int = 0
    n: int = 0
    errors: int = 0
    lost: int = 0
    rejected: int = 0
    shed: int = 0
    cold: int = 0
    runs: int = 0
    labelled: int = 0
    correct: int = 0
    compared: int = 0
    agreed: int = 0
    dropped: int = 0
    sampled: int = 0
    sent: int = 0
    length_ms: int = 0
    cpu_ms: int = 0
    raw_bytes: int = 0
    wire_bytes: int = 0
    measured_mj: int = 0
    measured_n: int = 0
    estimated_mj: int = 0
    estimated_n: int = 0
    unsynced: int = 0
    moved: int = 0
    rss_mib: int = 0
    celsius: int | None = None
    latency: dict[int, int] = {}
    queue: dict[int, int] = {}
    classes: dict[int, int] = {}
    confidence: list[int] = []
    entropy: list[int] = []
    features: list[list[int]] = []
    providers: dict[str, int] = {}
    wanted: dict[str, int] = {}
    nodes: dict[str, int] = {}

    def add(self, kept: Kept) -> None:
        """Count a window."""
        window = kept.window
        self.windows += 1
        self.n += window.n
        self.errors += window.errors
        self.lost += window.lost
        self.rejected += window.rejected
        self.shed += window.shed
        self.cold += window.cold
        self.runs += window.runs
        self.labelled += window.labelled
        self.correct += window.correct
        self.compared += window.compared
        self.agreed += window.agreed
        self.dropped += window.dropped
        self.sampled += window.sampled
        self.sent += window.sent
        self.length_ms += window.length_ms
        self.cpu_ms += window.cpu_ms
        self.raw_bytes += window.raw_bytes
        self.wire_bytes += kept.bytes
        self.unsynced += not window.synced
        self.moved += kept.moved
        self._add_energy(window)
        self.rss_mib = max(self.rss_mib, window.rss_mib)
        self.celsius = _warmer(self.celsius, window.celsius)
        spread(self.latency, window.latency, MAX_BUCKET)
        spread(self.queue, window.queue, MAX_BUCKET)
        spread(self.classes, window.classes, MAX_CLASSES - 1)
        self.confidence = _dense(self.confidence, window.confidence)
        self.entropy = _dense(self.entropy, window.entropy)
        self.features = _rows(self.features, window.features)
        if window.n:
            _named(self.providers, kept.provider, window.n)
            if kept.wanted:
                _named(self.wanted, kept.wanted, window.n)
        if kept.nodes:
            _largest(self.nodes, kept.nodes)

    def _add_energy(self, window: Window) -> None:
        if window.method == "cpu_time":
            self.estimated_mj += window.energy_mj
            self.estimated_n += window.n
        elif window.method:
            self.measured_mj += window.energy_mj
            self.measured_n += window.n

    def merge(self, other: Sums) -> None:
        """Count what ``other`` has counted; ``other`` stays as it is."""
        for name in COUNTS:
            more = getattr(other, name)
            if more:
                setattr(self, name, getattr(self, name) + more)
        self.rss_mib = max(self.rss_mib, other.rss_mib)
        self.celsius = _warmer(self.celsius, other.celsius)
        for mine, theirs in (
            (self.latency, other.latency),
            (self.queue, other.queue),
            (self.classes, other.classes),
        ):
            for key, many in theirs.items():
                mine[key] = mine.get(key, 0) + many
        self.confidence = _dense(self.confidence, other.confidence)
        self.entropy = _dense(self.entropy, other.entropy)
        self.features = _rows(self.features, other.features)
        _all_named(self.providers, other.providers)
        _all_named(self.wanted, other.wanted)
        _largest(self.nodes, other.nodes)


COUNTS = tuple(
    name
    for name, default in zip(Sums.__struct_fields__, Sums.__struct_defaults__, strict=True)
    if default == 0 and name != "rss_mib"
)
"""The fields of ``Sums`` that are plain sums."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Sums)


def total(parts: Iterable[Sums]) -> Sums:
    """All of them, merged into a new one."""
    whole = Sums()
    for part in parts:
        whole.merge(part)
    return whole


def encode(sums: Sums) -> bytes:
    """The form in which sums are stored; one beyond ``MOST`` is stored as that."""
    try:
        return _encoder.encode(sums)
    except OverflowError:
        return _encoder.encode(_stopped(sums))


def decode(body: bytes) -> Sums:
    """Sums as they were stored."""
    return _decoder.decode(body)


def _stopped(sums: Sums) -> Sums:
    def stop(value: object) -> object:
        match value:
            case int():
                return min(value, MOST)
            case list():
                return [stop(one) for one in value]
            case dict():
                return {key: stop(one) for key, one in value.items()}
            case _:
                return value

    return Sums(*(stop(getattr(sums, name)) for name in sums.__struct_fields__))  # type: ignore[arg-type]  # each stays of its type


def spread(into: dict[int, int], sparse: Sequence[int], most: int) -> None:
    """Add counts as the wire has them (``schemas.window.unpack``, at the speed of C)."""
    if not sparse:
        return
    buckets = list(map(add, accumulate(sparse[::2]), count()))
    if buckets[-1] > most:
        buckets = [min(bucket, most) for bucket in buckets]
    for bucket, many in zip(buckets, sparse[1::2], strict=True):
        into[bucket] = into.get(bucket, 0) + many


def _dense(mine: list[int], theirs: Sequence[int]) -> list[int]:
    if not theirs:
        return mine
    if len(mine) == len(theirs):
        return list(map(add, mine, theirs))
    return [a + b for a, b in zip_longest(mine, theirs, fillvalue=0)]


def _rows(mine: list[list[int]], theirs: Sequence[Sequence[int]]) -> list[list[int]]:
    if not theirs:
        return mine
    if len(mine) == len(theirs):
        return list(map(_dense, mine, theirs))
    none: list[int] = []
    return [_dense(list(a), b) for a, b in zip_longest(mine, theirs, fillvalue=none)]


def _warmer(a: int | None, b: int | None) -> int | None:
    if a is None or b is None:
        return b if a is None else a
    return max(a, b)


def _named(into: dict[str, int], name: str, many: int) -> None:
    if many:
        into[name] = into.get(name, 0) + many


def _all_named(into: dict[str, int], more: dict[str, int]) -> None:
    for name, many in more.items():
        into[name] = into.get(name, 0) + many


def _largest(into: dict[str, int], more: dict[str, int]) -> None:
    for name, many in more.items():
        into[name] = max(into.get(name, 0), many)
