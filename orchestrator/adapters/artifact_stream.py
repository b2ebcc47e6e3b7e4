"""What every artifact store does to the bytes that come: hash them, bound them, cut leaves."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from orchestrator.errors import DigestMismatch, Invalid, NotFound, TooLarge
from schemas.transfer import CHUNK_BYTES, chunk_count

DIGEST = re.compile(r"[0-9a-f]{64}")
DIGEST_BYTES = 32
LEAVES = ".leaves"


class Leaves:
    """Digests of consecutive 64 KiB chunks of a stream that is cut anyhow."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._filled = 0
        self.digests = bytearray()

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            part = view[: CHUNK_BYTES - self._filled]
            self._hash.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == CHUNK_BYTES:
                self.finish()

    def finish(self) -> None:
        """End the last chunk, which may be shorter."""
        if self._filled:
            self.digests += self._hash.digest()
            self._hash = hashlib.sha256()
            self._filled = 0


def copy(
    stream: Iterable[bytes], file: BinaryIO | None, sha256: str, max_size: int
) -> tuple[int, bytes]:
    """Hash a stream, writing it where a file is given; answers (size, leaf digests).

    Raises:
        DigestMismatch: it is not what was announced.
        TooLarge: it has more than ``max_size`` bytes; told at the first one too many.
    """
    whole, leaves, size = hashlib.sha256(), Leaves(), 0
    for piece in stream:
        size += len(piece)
        if size > max_size:
            msg = f"an upload is larger than the {max_size} bytes that are allowed"
            raise TooLarge(msg)
        whole.update(piece)
        leaves.update(piece)
        if file is not None:
            file.write(piece)
    if whole.hexdigest() != sha256:
        msg = f"the bytes have the SHA-256 {whole.hexdigest()}, not {sha256}"
        raise DigestMismatch(msg, hint="send the file again, whole")
    leaves.finish()
    return size, bytes(leaves.digests)


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """A file's bytes, a MiB at a time."""
    while piece := file.read(1024 * 1024):
        yield piece


def cut(flat: bytes) -> list[bytes]:
    """Leaf digests, one by one."""
    return [flat[i : i + DIGEST_BYTES] for i in range(0, len(flat), DIGEST_BYTES)]


def check_digest(sha256: str) -> str:
    """The digest itself; nothing else ever becomes part of a name.

    Raises:
        Invalid: it is none.
    """
    if not DIGEST.fullmatch(sha256):
        msg = f"not a SHA-256 digest (64 lower-case hex characters): {sha256[:80]!r}"
        raise Invalid(msg)
    return sha256


def check_chunk(sha256: str, size: int, index: int) -> None:
    """Raise NotFound where an artifact of that size has no such chunk."""
    if not 0 <= index < chunk_count(size):
        msg = f"artifact {sha256} has {chunk_count(size)} chunks, so none with {index}"
        raise NotFound(msg)


def missing(sha256: str) -> NotFound:
    """There is none of that digest."""
    return NotFound(f"there is no artifact {sha256}")
