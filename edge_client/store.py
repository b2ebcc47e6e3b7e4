"""The content-addressed store of model files: what is there, what fits, what can go."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_client.errors import DigestError, DiskFullError, UsageError
from edge_client.files import disk_errors, hash_file, read_limited, write_atomic
from edge_client.leaves import Leaves
from edge_client.partial import Partial, read_map
from edge_client.settings import MIB, Home
from schemas.measure import MAX_FILE_BYTES, ModelFile
from schemas.model import MAX_MANIFEST_BYTES
from schemas.transfer import MAX_HELD, leaves_digest

_SHA256 = re.compile(r"[0-9a-f]{64}")

RESERVE = 16 * MIB
"""Bytes that stay free on the disk for everything else."""


@dataclass(frozen=True, slots=True)
class Store:
    """All model files of a device. quota: bytes they may take together."""

    home: Home
    quota: int
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free

    def has(self, sha256: str) -> bool:
        """Whether a complete file is there."""
        return (self.home.blobs / sha256).is_file()

    def read(self, sha256: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """Read a complete file, and check that it still is what its name says.

        Raises:
            DigestError: it is missing or damaged; a damaged one is removed.
        """
        path = self.home.blobs / sha256
        try:
            data = read_limited(path, limit)
        except OSError as error:
            msg = f"model file {sha256[:12]} cannot be read: {error.strerror}"
            raise DigestError(msg) from error
        except UsageError:  # a good one is smaller
            data = b""
        if hashlib.sha256(data).hexdigest() != sha256:
            with contextlib.suppress(OSError):  # where nothing can be written it stays
                path.unlink(missing_ok=True)
            msg = f"model file {sha256[:12]} was damaged on the disk"
            raise DigestError(msg)
        return data

    def check(self, file: ModelFile) -> None:
        """Hash a complete file again.

        Raises:
            DigestError: it is damaged; it is removed, so that it is fetched anew.
        """
        path = self.home.blobs / file.sha256
        if hash_file(path) != file.sha256:
            path.unlink(missing_ok=True)
            msg = f"{file.path} was damaged on the disk"
            raise DigestError(msg)

    @property
    def leaves(self) -> Leaves:
        """The chunk digests of files, complete ones and such on their way."""
        return Leaves(self.home.leaves)

    def known_leaves(self, file: ModelFile) -> tuple[bytes, ...] | None:
        """The chunk digests kept of a file on its way, when they are the manifest's."""
        leaves = self.leaves.read(file.sha256)
        return leaves if leaves and leaves_digest(leaves) == file.leaves_sha256 else None

    def held(self, file: ModelFile, *, first: str | None = None) -> tuple[str, ...]:
        """Complete files of which another one may be made; those nearest in size before others.

        first: one that comes before all, such as the model that serves.
        """
        found = []
        for path in self.home.blobs.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append((path.name != first, abs(path.stat().st_size - file.size), path.name))
        return tuple(name for *_, name in sorted(found) if _SHA256.fullmatch(name))[:MAX_HELD]

    def fetched_for(self, file: ModelFile, owner: str) -> int:
        """Bytes of a file that came over the network on behalf of an attempt."""
        saved = read_map(self.home.partial / f"{file.sha256}.map")
        return saved.fetched if saved is not None and saved.owner == owner else 0

    def open_partial(self, file: ModelFile, leaves: Sequence[bytes], owner: str) -> Partial:
        """Begin or go on with a file on behalf of an attempt; it is still to be resumed.

        Raises:
            DigestError: the leaves are not the manifest's.
            DiskFullError: there is no room.
        """
        partial = Partial(self.home.partial, file, leaves, owner)
        with disk_errors(file.path):
            if self.leaves.read(file.sha256) != partial.leaves:
                self.leaves.keep(file.sha256, leaves)
        return partial

    def has_room(self, size: int, *, beside: ModelFile) -> bool:
        """Whether ``size`` bytes fit beside a file on its way, without removing anything."""
        arrived = self._size(self.home.partial / f"{beside.sha256}.data")
        room = self.free_bytes(self.home.blobs) - RESERVE
        used = self._used([beside.sha256])
        return used + beside.size + size <= self.quota and beside.size - arrived + size <= room

    def save_manifest(self, sha256: str, text: bytes) -> None:
        """Keep a genuine manifest."""
        with disk_errors("manifest"):
            write_atomic(self.home.manifests / f"{sha256}.json", text)

    def manifest(self, sha256: str) -> bytes:
        """Read a manifest that was kept, checking its hash.

        Raises:
            DigestError: it is missing or damaged.
        """
        try:
            text = read_limited(self.home.manifests / f"{sha256}.json", MAX_MANIFEST_BYTES)
        except OSError as error:
            msg = f"manifest {sha256[:12]} cannot be read: {error.strerror}"
            raise DigestError(msg) from error
        if hashlib.sha256(text).hexdigest() != sha256:
            msg = f"manifest {sha256[:12]} was damaged on the disk"
            raise DigestError(msg)
        return text

    def make_room(self, wanted: Iterable[ModelFile], keep: Iterable[str]) -> None:
        """See to it that files fit, removing what nothing needs.

        Args:
            wanted: the files to be fetched.
            keep: SHA-256 of complete files in use.

        Raises:
            DiskFullError: they do not fit.
        """
        files = {file.sha256: file for file in wanted}
        missing = sum(f.size for f in files.values() if not self.has(f.sha256))
        arrived = sum(self._size(self.home.partial / f"{sha}.data") for sha in files)
        if self._fits(missing, arrived, files):
            return
        self.collect(keep={*keep, *files}, partial=set(files))
        if not self._fits(missing, arrived, files):
            used = self._used(files)
            msg = (
                f"the model needs {missing} bytes; {used} of the quota of {self.quota} are taken"
                f" and {self.free_bytes(self.home.blobs)} are free on the disk"
            )
            raise DiskFullError(msg)

    def collect(self, *, keep: set[str], partial: set[str] | None = None) -> None:
        """Remove complete files and manifests not in ``keep``.

        partial: unfinished files to keep; all of them when it is None.
        """
        for path in self.home.blobs.iterdir():
            if path.name not in keep:
                path.unlink(missing_ok=True)
        for path in self.home.manifests.iterdir():
            if path.suffix == ".json" and path.stem not in keep and keep:
                path.unlink(missing_ok=True)
        for path in self.home.partial.iterdir():
            orphan = not path.with_suffix(".data").exists()
            if orphan or (partial is not None and path.stem not in partial):
                path.unlink(missing_ok=True)
        there = (*self.home.blobs.iterdir(), *self.home.partial.iterdir())
        self.leaves.forget_all_but({path.stem for path in there})

    def _fits(self, missing: int, arrived: int, files: Iterable[str]) -> bool:
        room = self.free_bytes(self.home.blobs) - RESERVE
        return self._used(files) + missing <= self.quota and missing - arrived <= room

    def _used(self, besides: Iterable[str]) -> int:
        """Bytes taken, not counting the partial data of the files on their way."""
        mine = {f"{sha}.data" for sha in besides}
        paths = [*self.home.blobs.iterdir(), *self.home.partial.iterdir()]
        return sum(self._size(path) for path in paths if path.name not in mine)

    @staticmethod
    def _size(path: Path) -> int:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0
