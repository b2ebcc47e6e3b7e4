"""Uploads into the artifact store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from orchestrator.errors import NotFound
from schemas.api import Stored


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
    """

    def __init__(self, store: Store, max_bytes: int, why_gone: Callable[[str], str | None]) -> None:
        self._store = store
        self._max = max_bytes
        self._why_gone = why_gone

    def put(self, sha256: str, stream: Iterable[bytes]) -> Stored:
        """Store what a stream holds, if it has that digest."""
        return self._store.put(stream, sha256, self._max)

    def get(self, sha256: str) -> tuple[int, Iterator[bytes]]:
        """An artifact's size and its bytes, in pieces.

        Raises:
            NotFound: there is none, or not any more, with the version that it was of.
        """
        try:
            size = self._store.size(sha256)
        except NotFound:
            why = self._why_gone(sha256)
            if why is None:
                raise
            raise NotFound(why) from None
        return size, self._pieces(sha256, size)

    def _pieces(self, sha256: str, size: int) -> Iterator[bytes]:
        index, sent = 0, 0
        while sent < size:
            piece = self._store.read_chunk(sha256, index)
            yield piece
            index, sent = index + 1, sent + len(piece)
