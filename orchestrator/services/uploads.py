"""Uploads into the artifact store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

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
    """

    def __init__(self, store: Store, max_bytes: int) -> None:
        self._store = store
        self._max = max_bytes

    def put(self, sha256: str, stream: Iterable[bytes]) -> Stored:
        """Store what a stream holds, if it has that digest."""
        return self._store.put(stream, sha256, self._max)

    def get(self, sha256: str) -> tuple[int, Iterator[bytes]]:
        """An artifact's size and its bytes, in pieces.

        Raises:
            NotFound: there is none.
        """
        size = self._store.size(sha256)
        return size, self._pieces(sha256, size)

    def _pieces(self, sha256: str, size: int) -> Iterator[bytes]:
        index, sent = 0, 0
        while sent < size:
            piece = self._store.read_chunk(sha256, index)
            yield piece
            index, sent = index + 1, sent + len(piece)
