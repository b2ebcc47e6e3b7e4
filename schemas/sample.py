"""Hard examples: inputs that a device gives away because its operator opted in.

Two streams that are never mixed: ``uniform`` is a random sample of all that is served, from which
shares can be estimated (Horvitz and Thompson, JASA 1952: each counts 1 / probability);
``uncertain`` is what the model was least sure of, which is for training.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.base import MAX_INTEGER
from schemas.window import Id, Label, Text, WindowError

MAX_SAMPLE_BYTES = 256 * 1024
MAX_INPUTS = 32

Stream = Literal["uniform", "uncertain"]


class Tensor(msgspec.Struct, array_like=True, frozen=True):
    """One input of one sample: its name, dtype, shape without the batch, and bytes in C order."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    dtype: Text
    shape: Annotated[list[Annotated[int, Meta(ge=1, le=2**31)]], Meta(max_length=8)]
    data: Annotated[bytes, Meta(max_length=MAX_SAMPLE_BYTES)]


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """One publication on ``up/sample``, QoS 1. The key is (device, boot, seq).

    at_ms, synced: as in a window. probability: with which a sample of its kind was drawn
    (0..1]. predicted: the class that was answered, with its confidence; truth: where the
    device knew it.
    """

    format: Literal[1]
    boot: Id
    seq: Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
    model: Label
    version: Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
    variant: Label
    stream: Stream
    probability: Annotated[float, Meta(gt=0, le=1)]
    at_ms: Annotated[int, Meta(ge=0, le=10**14)]
    synced: bool
    inputs: Annotated[list[Tensor], Meta(min_length=1, max_length=MAX_INPUTS)]
    predicted: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    confidence: Annotated[float, Meta(ge=0, le=1)] | None = None
    truth: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Sample)


def encode(sample: Sample) -> bytes:
    """The wire form."""
    return _encoder.encode(sample)


def decode(payload: bytes) -> Sample:
    """Read and check a sample; what its tensors hold is checked by whoever uses them.

    Raises:
        WindowError: it is too big, malformed or out of bounds.
    """
    if len(payload) > MAX_SAMPLE_BYTES:
        msg = f"a sample has at most {MAX_SAMPLE_BYTES} bytes, this one {len(payload)}"
        raise WindowError(msg)
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WindowError(str(error)[:300]) from error
