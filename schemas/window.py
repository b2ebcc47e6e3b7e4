"""A telemetry window on the wire, and the envelope that windows travel in.

MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md) of arrays in the order of
the fields below, not of maps: names would cost more than the figures. msgspec checks types and
bounds while it decodes. New fields come last and have a default, so that an older peer's
shorter array is still read, and a longer one's end is ignored.

Sparse counts (``Sparse``) are a flat list of pairs, gap and count: the gap is how far the
bucket lies beyond the one before (the first: beyond -1, less one, so bucket 0 has gap 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from schemas.base import MAX_INTEGER

FORMAT = 1
"""The first value of every envelope."""

MAX_ENVELOPE_BYTES = 64 * 1024
MAX_WINDOWS = 64
"""Windows in one envelope."""

MAX_SPARSE = 2 * 10_000
MAX_FEATURES = 64
SHARES = 10
"""Equal bins of confidence and of entropy, which is divided by the logarithm of the classes."""

Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Id: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Label: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")]
"""As ``schemas.ids.Name``: a model or a variant."""
Sparse: TypeAlias = Annotated[list[Count], Meta(max_length=MAX_SPARSE)]
Shares: TypeAlias = Annotated[list[Count], Meta(max_length=SHARES)]

Role = Literal["active", "shadow"]
Method = Literal["", "rapl", "meter", "cpu_time"]


class About(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=False):
    """What the windows of an envelope have in common.

    boot: of the process that counted, drawn at its start (16 bytes). provider: the execution
    provider in use; wanted: the one that was asked for, "" where it is the same. nodes: how many
    nodes of the graph each provider runs, where there are several. device_class is not here: the
    server knows it.
    """

    boot: Id
    model: Label
    version: Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
    variant: Label
    role: Role = "active"
    provider: Text = "CPUExecutionProvider"
    wanted: Annotated[str, Meta(max_length=64)] = ""
    nodes: Annotated[dict[Text, Count], Meta(max_length=16)] = {}


class Window(msgspec.Struct, array_like=True, frozen=True):
    """What one process of a device inferred with one variant in one span of time.

    The key is (device, about.boot, seq): a repeat is stored once. start_ms: milliseconds since
    1970, by the server's clock where ``synced``, else by the device's own. length_ms: by a
    steady clock.

    n: samples tried; errors: those of them that failed in the model. rejected: samples refused
    before the model saw them, as they do not fit the signature. shed: dropped unanswered, late or
    for want of room. cold: loads. runs: calls of the session, so n / runs is the mean batch.
    latency, queue: microseconds that a sample took in the model, and waited before it (Sparse,
    buckets of ``schemas.telemetry``). classes: counts by class (Sparse). confidence, entropy: of
    the class probabilities, in ten equal bins. features: per input statistic of the manifest's
    baseline, in its order: [under, over, nan, bin, bin, …], trailing zeros cut; they may be of
    fewer samples than n, drawn at random. labelled, correct: samples whose class the device knew.
    compared, agreed: of a shadow, samples that the active model answered too.
    lost: samples that were served by a process that was killed, of which nothing else is known;
    they are in n. dropped: windows lost before this one because the buffer was full.
    raw_bytes: what the inputs would have cost to upload. rss_mib: of the process; celsius: of
    the processor; cpu_ms: of the process; energy_mj: of the inferences, by method.
    sampled: samples set aside for the operator, by opt-in; sent: of them, sent.
    """

    about: Annotated[int, Meta(ge=0, lt=MAX_WINDOWS)]
    seq: Count
    start_ms: Annotated[int, Meta(ge=0, le=10**14)]
    synced: bool
    length_ms: Annotated[int, Meta(ge=0, le=31 * 86_400_000)]
    n: Count
    errors: Count = 0
    runs: Count = 0
    latency: Sparse = []
    confidence: Shares = []
    entropy: Shares = []
    classes: Sparse = []
    features: Annotated[
        list[Annotated[list[Count], Meta(max_length=3 + 32)]], Meta(max_length=MAX_FEATURES)
    ] = []
    raw_bytes: Count = 0
    cpu_ms: Count = 0
    rss_mib: Count = 0
    energy_mj: Count = 0
    method: Method = ""
    queue: Sparse = []
    rejected: Count = 0
    shed: Count = 0
    cold: Count = 0
    labelled: Count = 0
    correct: Count = 0
    compared: Count = 0
    agreed: Count = 0
    lost: Count = 0
    dropped: Count = 0
    celsius: Annotated[int, Meta(ge=-100, le=300)] | None = None
    sampled: Count = 0
    sent: Count = 0


class Envelope(msgspec.Struct, array_like=True, frozen=True):
    """One publication on ``up/tele``."""

    format: Literal[1]
    about: Annotated[list[About], Meta(min_length=1, max_length=MAX_WINDOWS)]
    windows: Annotated[list[Window], Meta(min_length=1, max_length=MAX_WINDOWS)]


class WindowError(ValueError):
    """What is no envelope, with the reason on one line."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)
_STANDARD = {
    kind: [
        field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        for field in msgspec.structs.fields(kind)
        if not field.required
    ]
    for kind in (About, Window)
}


def encode(envelope: Envelope) -> bytes:
    """The wire form: fields at the end that have their default are left out."""
    abouts = [_short(about) for about in envelope.about]
    windows = [_short(window) for window in envelope.windows]
    return _encoder.encode((envelope.format, abouts, windows))


def _short(one: About | Window) -> list[object]:
    values = [getattr(one, name) for name in one.__struct_fields__]
    for standard in reversed(_STANDARD[type(one)]):
        if values[-1] != standard:
            break
        values.pop()
    return values


def decode(payload: bytes) -> Envelope:
    """Read and check an envelope.

    Raises:
        WindowError: it is too big, malformed, out of bounds or contradicts itself.
    """
    if len(payload) > MAX_ENVELOPE_BYTES:
        msg = f"an envelope has at most {MAX_ENVELOPE_BYTES} bytes, this one {len(payload)}"
        raise WindowError(msg)
    try:
        envelope = _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WindowError(str(error)[:300]) from error
    for window in envelope.windows:
        why = contradiction(window, len(envelope.about))
        if why is not None:
            raise WindowError(why)
    return envelope


def contradiction(window: Window, abouts: int) -> str | None:
    """What in a window cannot be, for all that each of its fields is in bounds."""
    if window.about >= abouts:
        return f"it refers to about {window.about} of {abouts}"
    if window.errors + window.lost > window.n or window.labelled > window.n:
        return "errors + lost ≤ n and labelled ≤ n must hold"
    if window.correct > window.labelled or window.agreed > window.compared:
        return "correct ≤ labelled and agreed ≤ compared must hold"
    odd = (window.latency, window.queue, window.classes)
    if any(len(sparse) % 2 for sparse in odd):
        return "sparse counts come in pairs"
    return None


def pack(counts: Mapping[int, int]) -> list[int]:
    """Counts by bucket as ``Sparse``."""
    flat: list[int] = []
    last = -1
    for bucket in sorted(counts):
        if counts[bucket]:
            flat += (bucket - last - 1, counts[bucket])
            last = bucket
    return flat


def unpack(sparse: Sequence[int], most: int) -> dict[int, int]:
    """The counts by bucket; what lies beyond bucket ``most`` counts in that one."""
    counts: dict[int, int] = {}
    bucket = -1
    for i in range(0, len(sparse), 2):
        bucket += sparse[i] + 1
        key = min(bucket, most)
        counts[key] = counts.get(key, 0) + sparse[i + 1]
    return counts
