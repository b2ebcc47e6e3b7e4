"""Uploads into the artifact store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from orchestrator.errors import NotFound
from orchestrator.services.holds import Holds
from schemas.api import Stored
from schemas.transfer import CHUNK_BYTES


class Store(Protocol):
    """The part of the artifact store that takes and gives whole files."""

    def put(self, stream: Iterable[bytes], sha256: str, max_size: int) -> Stored: ...
    def size(self, sha256: str) -> int: ...
    def read_chunk(self, sha256: str, index: int) -> bytes: ...


class UploadService:
    """Takes and gives artifacts.

    Args:
        store: where they are.
        max_bytes: the largest that is taken.
        why_gone: why an artifact is not there any more, where that is known.
        holds: keeps what is uploaded from being deleted meanwhile.
    """

    def __init__(
        self,
        store: Store,
        max_bytes: int,
        why_gone: Callable[[str], str | None],
        holds: Holds,
    ) -> None:
        self._store = store
        self._max = max_bytes
        self._why_gone = why_gone
        self._holds = holds

    def put(self, sha256: str, stream: Iterable[bytes]) -> Stored:
        """Store what a stream holds, if it has that digest.

        If the same file is being deleted just now, that comes to its end first.

        Raises:
            DigestMismatch, TooLarge, Unavailable: as the store does.
            Conflict: it is still being deleted after 95 s.
        """
        with self._holds.upload(sha256):
            return self._store.put(stream, sha256, self._max)

    def size(self, sha256: str) -> int:
        """An artifact's size in bytes.

        Raises:
            NotFound: there is none, or not any more, with the version that it was of.
        """
        try:
            return self._store.size(sha256)
        except NotFound:
            why = self._why_gone(sha256)
            if why is None:
                raise
            raise NotFound(why) from None

    def pieces(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        """An artifact's bytes from ``start`` up to, not with, ``end``, in pieces."""
        while start < end:
            index, skipped = divmod(start, CHUNK_BYTES)
            piece = self._store.read_chunk(sha256, index)[skipped : skipped + end - start]
            yield piece
            start += len(piece)
