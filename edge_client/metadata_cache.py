"""Metadata files on the disk: a copy that saves asking, and is verified whenever it is read.

Nothing rests on it: a file that is missing, damaged or old is asked for again, and how old
metadata may be is decided by ``edge_client.metadata_floors``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edge_client.errors import UsageError
from edge_client.files import fsync_folder, read_limited, write_atomic
from schemas.trust import MAX_METADATA_BYTES


class Cache(Protocol):
    """Files by name: ``timestamp.json``, ``<role>.json``, ``<version>.root.json``."""

    def read(self, name: str) -> bytes | None:
        """A file; None when there is none that can be read."""

    def write(self, name: str, data: bytes) -> None:
        """Keep a file, on the disk when it returns.

        Raises:
            OSError: it could not be written; then the old one stands.
        """

    def remove(self, name: str) -> None:
        """Forget a file, for good when it returns.

        Raises:
            OSError: it could not be removed.
        """


class MetadataCache:
    """A folder of metadata files; only its owner may look inside."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which need not be there yet."""
        self._folder = folder
        self._swept = False

    def read(self, name: str) -> bytes | None:
        """Read a file of at most ``MAX_METADATA_BYTES``."""
        try:
            return read_limited(self._folder / name, MAX_METADATA_BYTES)
        except (OSError, UsageError):
            return None

    def write(self, name: str, data: bytes) -> None:
        """Replace a file: its old bytes or the new are there after a crash, nothing else."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._swept:
            for left in self._folder.glob(".*.tmp"):  # by a process that was killed
                left.unlink(missing_ok=True)
            self._swept = True
        write_atomic(self._folder / name, data, mode=0o600)

    def remove(self, name: str) -> None:
        """Remove a file."""
        path = self._folder / name
        if path.exists():
            path.unlink()
            fsync_folder(self._folder)
