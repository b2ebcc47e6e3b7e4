"""The metadata folder: files written whole, the newest kept, the old ones cleared away."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from orchestrator.adapters.trust.documents import ROOT, split_name
from orchestrator.errors import Invalid, Unavailable
from orchestrator.home import write_atomic
from schemas.trust import MAX_METADATA_BYTES

KEPT = 8
"""Versions of a role that stay: a device may be in the middle of a refresh."""

Write = Callable[[Path, bytes, int], None]


class MetadataFolder:
    """``HOME/trust``: ``metadata/`` with the files, ``keys/``, and the lock of who writes.

    Args:
        path: the folder.
        write: replaces a file atomically.
    """

    def __init__(self, path: Path, write: Write = write_atomic) -> None:
        self.path = path
        self.keys = path / "keys"
        self.metadata = path / "metadata"
        self._write = write
        # Made once: they are looked at for each document that is signed.
        self._marks = (self.metadata, self.metadata / "timestamp.json", self.keys)

    def exists(self) -> bool:
        """Whether there is metadata: the first root is written when all else is there."""
        return (self.metadata / "1.root.json").exists()

    def read(self, name: str) -> bytes | None:
        """A file by its name; None when there is none.

        Raises:
            Unavailable: it cannot be read.
        """
        try:
            with (self.metadata / name).open("rb") as file:
                return file.read(MAX_METADATA_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            msg = f"cannot read {self.metadata / name}: {error.strerror}"
            raise Unavailable(msg) from error

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files one after the other, each of them whole or not at all.

        Raises:
            Unavailable: the disk is full or the folder cannot be written; what devices
                verify is what it was.
        """
        try:
            self.metadata.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, raw in files.items():
                self._write(self.metadata / name, raw, 0o600)
        except OSError as error:
            msg = f"cannot write to {self.metadata}: {error.strerror or error}"
            raise Unavailable(msg, hint="free space on that disk") from error

    def prune(self) -> None:
        """Delete versions that no refresh under way can need; roots stay for ever."""
        versions: dict[str, list[int]] = {}
        for path in self.metadata.glob("*.json"):
            with contextlib.suppress(Invalid):
                role, version = split_name(path.name)
                if version is not None and role != ROOT:
                    versions.setdefault(role, []).append(version)
        for role, found in versions.items():
            for version in sorted(found)[:-KEPT]:
                (self.metadata / f"{version}.{role}.json").unlink(missing_ok=True)

    def stamp(self) -> tuple[object, ...]:
        """What differs after anybody wrote metadata or keys."""
        found: list[object] = []
        for path in self._marks:
            try:
                status = path.stat()
            except OSError:
                found.append(None)
            else:
                found += [status.st_ino, status.st_mtime_ns]
        return tuple(found)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that writes.

        Raises:
            Unavailable: the lock cannot be made.
        """
        try:
            file = (self.path / "lock").open("a+b")
        except OSError as error:
            msg = f"cannot use {self.path}: {error.strerror}"
            raise Unavailable(msg) from error
        with file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            yield
