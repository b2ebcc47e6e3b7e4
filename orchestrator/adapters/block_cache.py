"""Blocks of hot files on the local disk, bounded: the least recently read go first."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
from collections import OrderedDict
from pathlib import Path


class BlockCache:
    """Named blocks of bytes in a folder. Every method may be called from any thread.

    It begins empty: what a killed process left may be torn, and is soon fetched again.

    Args:
        folder: its own; what is in it is removed.
        max_bytes: of all blocks together; 0 keeps nothing.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._max = max_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._total = 0

    @property
    def total(self) -> int:
        """Bytes it holds now."""
        return self._total

    def read(self, name: str, offset: int, length: int) -> bytes | None:
        """A part of a block; None when the block is not here."""
        with self._lock:
            if name not in self._sizes:
                return None
            self._sizes.move_to_end(name)
        try:
            with (self._folder / name).open("rb") as file:
                return os.pread(file.fileno(), length, offset)
        except OSError:
            # Evicted meanwhile, or removed by hand.
            self._forget(name)
            return None

    def put(self, name: str, data: bytes) -> None:
        """Keep a block, if there is room; a full disk only means that it is not kept.

        Args:
            name: a plain file name.
            data: the whole block.
        """
        if len(data) > self._max:
            return
        # Not synced: nothing here outlives the process. Renamed, so that no reader sees half.
        temporary = self._folder / f".{secrets.token_hex(8)}"
        try:
            temporary.write_bytes(data)
            temporary.replace(self._folder / name)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            return
        with self._lock:
            self._total += len(data) - self._sizes.pop(name, 0)
            self._sizes[name] = len(data)
            gone = []
            while self._total > self._max:
                oldest, size = self._sizes.popitem(last=False)
                self._total -= size
                gone.append(oldest)
        for old in gone:
            self._unlink(old)

    def drop(self, prefix: str) -> None:
        """Let go of every block whose name begins so."""
        with self._lock:
            names = [name for name in self._sizes if name.startswith(prefix)]
        for name in names:
            self._forget(name)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._total -= self._sizes.pop(name, 0)
        self._unlink(name)

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()
