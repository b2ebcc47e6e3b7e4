"""The chunks of files that devices may fetch, as they travel."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from orchestrator.errors import NotFound
from orchestrator.services.ports import Artifacts
from schemas.transfer import CHUNK_BYTES, HEADER_BYTES, chunk_count, chunk_header, tag_of

FRESH_SECONDS = 1.0
"""For so long it is believed that a file is served: a revoked one stops after it."""

_MAX_KNOWN = 1000

Serves = Callable[[str], bool]


class ChunkService:
    """Reads chunks, and remembers for a second which files are there. Used from one thread.

    Args:
        serves: whether devices may fetch a file.
        artifacts: the files.
        clock: seconds, never going back.
    """

    def __init__(
        self, serves: Serves, artifacts: Artifacts, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._serves = serves
        self._artifacts = artifacts
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, int | None]] = OrderedDict()
        self._message = bytearray(HEADER_BYTES + CHUNK_BYTES)
        self._data = memoryview(self._message)[HEADER_BYTES:]

    def refusal(self, sha256: str, end: int) -> str | None:
        """Why chunks up to, not with, ``end`` cannot be had; None when they can.

        Raises:
            Unavailable: the database or the store does not answer.
        """
        size = self._size(sha256)
        if size is None:
            return "no version that is not revoked has such a file"
        count = chunk_count(size)
        return f"the file has {count} chunks" if end > count else None

    def message(self, sha256: str, batch: int, index: int) -> bytes | bytearray:
        """A chunk with its header. The next call may write over it.

        Raises:
            NotFound: there is no such file, or it has fewer chunks.
        """
        length = self._artifacts.read_into(sha256, index, self._data)
        self._message[:HEADER_BYTES] = chunk_header(batch, index, tag_of(sha256))
        if length == CHUNK_BYTES:
            return self._message
        return bytes(self._message[: HEADER_BYTES + length])

    def _size(self, sha256: str) -> int | None:
        now = self._clock()
        until, size = self._known.get(sha256, (0.0, None))
        if now >= until:
            try:
                size = self._artifacts.size(sha256) if self._serves(sha256) else None
            except NotFound:
                size = None
            self._known[sha256] = now + FRESH_SECONDS, size
            self._known.move_to_end(sha256)
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        return size
