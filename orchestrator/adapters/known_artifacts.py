"""What is remembered of artifacts in a bucket, so that it is not asked for each chunk."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

_SECONDS = 60.0
"""So long a size is believed: another process may delete the artifact."""

_SIZES = 10_000
_LEAVES = 64


class Known:
    """Sizes and leaves by digest, the oldest forgotten first. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoch = 0
        self._sizes: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._leaves: OrderedDict[str, bytes] = OrderedDict()

    @property
    def epoch(self) -> int:
        """Counts what was forgotten; to be read before what is learned is asked for."""
        return self._epoch

    def size(self, sha256: str) -> int | None:
        """Its bytes; None where they are not known, or for too long."""
        with self._lock:
            size, until = self._sizes.get(sha256, (0, 0.0))
        return size if time.monotonic() < until else None

    def learn(self, sha256: str, size: int, epoch: int) -> None:
        """Remember a size, unless something was forgotten since it was asked for."""
        with self._lock:
            if epoch != self._epoch:
                return
            self._sizes[sha256] = (size, time.monotonic() + _SECONDS)
            self._sizes.move_to_end(sha256)
            if len(self._sizes) > _SIZES:
                self._sizes.popitem(last=False)

    def leaves(self, sha256: str) -> bytes | None:
        """The digests of its chunks, one after the other; None where they are not known."""
        with self._lock:
            return self._leaves.get(sha256)

    def learn_leaves(self, sha256: str, flat: bytes) -> None:
        """Remember the digests of its chunks."""
        with self._lock:
            self._leaves[sha256] = flat
            if len(self._leaves) > _LEAVES:
                self._leaves.popitem(last=False)

    def doubt(self, sha256: str) -> None:
        """Have its size asked for anew."""
        with self._lock:
            self._sizes.pop(sha256, None)

    def forget(self, sha256: str) -> None:
        """It is deleted, or damaged; what was asked for before is not to be learned."""
        with self._lock:
            self._epoch += 1
            self._sizes.pop(sha256, None)
            self._leaves.pop(sha256, None)
