"""The transfer protocol: what a device asks for, and the chunks that answer.

The device pulls: it asks for the leaf digests of a file, checks them against the
signed manifest, then asks for ranges of chunks with a small credit window. docs/protocol.md
tells it to who writes another client.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from schemas.base import Wire
from schemas.ids import Sha256
from schemas.measure import MAX_FILE_BYTES

CHUNK_BYTES = 64 * 1024
MAX_WINDOW = 64
"""Chunks that may be outstanding at once."""

_HEADER = struct.Struct(">2sBBII8s")
_MAGIC = b"AC"
_VERSION = 1
HEADER_BYTES = _HEADER.size

MAX_HELD = 8
"""Files that a device names as bases of a patch."""

Range = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(gt=0)]]
"""Chunk indices from the first up to, not with, the second."""


class Way(StrEnum):
    """How a device is ready to get a file, beside pulling its chunks, which all can."""

    PATCH = "patch"
    BROADCAST = "broadcast"
    HTTPS = "https"


class Ask(Wire):
    """A device's question, on ``up/ask``; the answer is a ``Reply``.

    kind ``manifest``: of the version whose manifest has that digest; ``leaves``: the chunk
    digests of a file, and the ways to get it. held: complete files on the device of which
    the wanted one may be made. takes: the ways it is ready for; unknown ones are ignored.
    """

    kind: Literal["manifest", "leaves"]
    sha256: Sha256
    held: Annotated[tuple[Sha256, ...], Field(max_length=MAX_HELD)] = ()
    takes: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=16)], ...], Field(max_length=8)
    ] = ()


class PatchOffer(Wire):
    """A file that makes the wanted one of one that the device holds (``schemas.patch``).

    It is fetched like any other file. Nobody signed it: what it makes is checked chunk by
    chunk against the leaves of the wanted file, which the manifest signs.
    """

    base: Sha256
    sha256: Sha256
    size: Annotated[int, Field(gt=0, le=MAX_FILE_BYTES)]
    leaves_sha256: Sha256


class BroadcastOffer(Wire):
    """The chunks are about to be sent, or are being sent, to all who listen to the topic.

    batch: the number in those chunks' headers. starts_in: seconds; 0 when it has begun.
    rate: bytes a second. A device that has heard nothing of it for ``quiet`` seconds, after its
    start, pulls what it lacks.
    """

    batch: Annotated[int, Field(ge=0, lt=2**32)]
    starts_in: Annotated[float, Field(ge=0, le=60)]
    rate: Annotated[float, Field(gt=0)]
    quiet: Annotated[float, Field(gt=0, le=60)] = 2.0


class HttpsOffer(Wire):
    """The file by HTTPS, with ranges, from the server at which the device enrolled.

    path: with its query, which carries the signature. expires_in: seconds.
    """

    path: Annotated[str, StringConstraints(pattern=r"^/v1/[!-~]{1,1000}$")]
    expires_in: Annotated[float, Field(gt=0)]


class Need(Wire):
    """A device's request for ranges of chunks, on ``up/need``.

    batch: numbers the request within the transfer, so that a gap within one batch means a loss.
    """

    kind: Literal["chunks"]
    sha256: Sha256
    batch: Annotated[int, Field(ge=0, lt=2**32)] = 0
    ranges: Annotated[tuple[Range, ...], Field(min_length=1, max_length=MAX_WINDOW)]

    @model_validator(mode="after")
    def _within_credit(self) -> Need:
        if any(b <= a for a, b in self.ranges):
            msg = "a range ends after it starts"
            raise ValueError(msg)
        if sum(b - a for a, b in self.ranges) > MAX_WINDOW:
            msg = f"at most {MAX_WINDOW} chunks may be asked for at once"
            raise ValueError(msg)
        return self


class Reply(Wire):
    """The gateway's answer on ``down/reply``.

    manifest: the JSON text whose hash was asked for. leaves: hex of the concatenated digests.
    error: why there is none. kind ``broadcast`` comes unasked, to whoever pulls a file of which
    a broadcast is about to begin. retry_in: a patch is being made; who asks again after so many
    seconds may be offered it.
    """

    kind: Literal["manifest", "leaves", "chunks", "broadcast"]
    sha256: Sha256
    manifest: str | None = None
    leaves: str | None = None
    size: Annotated[int, Field(gt=0, le=MAX_FILE_BYTES)] | None = None
    patch: PatchOffer | None = None
    broadcast: BroadcastOffer | None = None
    https: HttpsOffer | None = None
    retry_in: Annotated[float, Field(gt=0, le=60)] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ChunkView:
    """A chunk whose data lie in the message that brought it."""

    batch: int
    index: int
    tag: bytes
    data: memoryview


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk as it travels. ``tag`` is the first 8 bytes of the file's SHA-256."""

    batch: int
    index: int
    tag: bytes
    data: bytes


def chunk_count(size: int) -> int:
    """How many chunks a file of ``size`` bytes has."""
    return -(-size // CHUNK_BYTES)


def tag_of(sha256: str) -> bytes:
    """The 8 bytes that say which file a chunk belongs to."""
    return bytes.fromhex(sha256)[:8]


def chunk_header(batch: int, index: int, tag: bytes) -> bytes:
    """The 20 bytes before a chunk's data, big-endian."""
    return _HEADER.pack(_MAGIC, _VERSION, 0, batch, index, tag)


def encode_chunk(chunk: Chunk) -> bytes:
    """Header and data."""
    return chunk_header(chunk.batch, chunk.index, chunk.tag) + chunk.data


def chunk_of(payload: bytes | memoryview) -> ChunkView | None:
    """Read a chunk message in place; None when it is malformed, of another version or too long."""
    if not HEADER_BYTES < len(payload) <= HEADER_BYTES + CHUNK_BYTES:
        return None
    magic, version, _flags, batch, index, tag = _HEADER.unpack_from(payload)
    if magic != _MAGIC or version != _VERSION:
        return None
    return ChunkView(batch, index, tag, memoryview(payload)[HEADER_BYTES:])


def decode_chunk(payload: bytes) -> Chunk | None:
    """Read a chunk message; None when it is malformed, of another version or too long."""
    view = chunk_of(payload)
    return None if view is None else Chunk(view.batch, view.index, view.tag, bytes(view.data))


def leaves_digest(leaves: Sequence[bytes]) -> str:
    """SHA-256, in hex, of the concatenated leaf digests."""
    return hashlib.sha256(b"".join(leaves)).hexdigest()


def leaves_of(blocks: Iterable[bytes]) -> list[bytes]:
    """The digest of every chunk; ``blocks`` are the file's consecutive 64 KiB chunks."""
    return [hashlib.sha256(block).digest() for block in blocks]
