"""The content-addressed store of model files, complete and partial.

A partial file's data are on the disk (fdatasync) before the bitmap that says so
(temporary file, fsync, rename). After a crash the chunks of the bitmap are hashed
again, and what is missing is fetched; what was there is not fetched twice.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from edge_client.errors import DigestError, DiskFullError
from edge_client.files import fsync_folder, read_limited, write_atomic
from edge_client.settings import MIB, Home
from schemas.base import Wire
from schemas.model import MAX_FILE_BYTES, MAX_MANIFEST_BYTES, ModelFile
from schemas.transfer import CHUNK_BYTES, chunk_count, leaves_digest

FLUSH_SECONDS = 0.5
FLUSH_CHUNKS = 64
RESERVE = 16 * MIB
"""Bytes that stay free on the disk for everything else."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DIGEST = 32


class _Map(Wire):
    """A partial file's side file: which chunks are there, in hex, low bit first.

    owner: the attempt for which ``fetched`` counts bytes off the network.
    """

    leaves: str
    bitmap: str
    owner: str
    fetched: int = 0


@contextmanager
def _disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            msg = f"the disk is full: {what}"
            raise DiskFullError(msg) from error
        raise


class Partial:
    """A file on its way. Used from one thread."""

    def __init__(self, folder: Path, file: ModelFile, leaves: Sequence[bytes], owner: str) -> None:
        """Open it, keeping the chunks that are there and sound.

        Raises:
            DigestError: the leaves are not the manifest's.
            DiskFullError: there is no room.
        """
        if len(leaves) != chunk_count(file.size) or leaves_digest(leaves) != file.leaves_sha256:
            msg = f"the chunk digests of {file.path} are not those of the manifest"
            raise DigestError(msg)
        self.file = file
        self.leaves = tuple(leaves)
        self.have: set[int] = set()
        self.fetched = 0
        self._owner = owner
        self._data = folder / f"{file.sha256}.data"
        self._map = folder / f"{file.sha256}.map"
        self._unsaved = 0
        self._saved_at: float | None = None
        with _disk(file.path):
            self._fd = os.open(self._data, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                self._resume()
                self.save()
            except BaseException:
                os.close(self._fd)
                raise

    def write(self, index: int, data: bytes) -> None:
        """Write a verified chunk; it counts after the next ``save``."""
        with _disk(self.file.path):
            os.pwrite(self._fd, data, index * CHUNK_BYTES)
        self.have.add(index)
        self._unsaved += 1

    def save_if_due(self, now: float) -> None:
        """Save when enough has come since the last time, or enough time has passed."""
        if self._saved_at is None:
            self._saved_at = now
        old = now - self._saved_at >= FLUSH_SECONDS
        if self._unsaved and (old or self._unsaved >= FLUSH_CHUNKS):
            self.save()
            self._saved_at = now

    def save(self) -> None:
        """Data first, then the bitmap that says they are there."""
        with _disk(self.file.path):
            os.fdatasync(self._fd)
            bits = bytearray(-(-len(self.leaves) // 8))
            for index in self.have:
                bits[index // 8] |= 1 << index % 8
            state = _Map(
                leaves=b"".join(self.leaves).hex(),
                bitmap=bits.hex(),
                owner=self._owner,
                fetched=self.fetched,
            )
            write_atomic(self._map, state.model_dump_json().encode(), mode=0o600)
        self._unsaved = 0

    def close(self) -> None:
        """Save and close; the file stays for a later attempt."""
        try:
            self.save()
        finally:
            os.close(self._fd)

    def finish(self, blobs: Path) -> None:
        """Hash the whole, make it durable and move it among the complete files.

        The map stays until the next ``collect``: it holds the count of bytes fetched.

        Raises:
            DigestError: the whole has another hash; the partial file is removed.
        """
        with _disk(self.file.path):
            os.ftruncate(self._fd, self.file.size)
            os.fsync(self._fd)
            self.save()
        os.close(self._fd)
        if hash_file(self._data) != self.file.sha256:
            self._data.unlink()
            self._map.unlink(missing_ok=True)
            msg = f"{self.file.path} has not the manifest's SHA-256 although all chunks fit"
            raise DigestError(msg)
        self._data.replace(blobs / self.file.sha256)
        fsync_folder(blobs)

    def _resume(self) -> None:
        saved = _read_map(self._map)
        if saved is None:
            return
        if saved.owner == self._owner:
            self.fetched = saved.fetched
        bits = bytes.fromhex(saved.bitmap)
        for index, leaf in enumerate(self.leaves):
            if index // 8 < len(bits) and bits[index // 8] >> index % 8 & 1:
                data = os.pread(self._fd, CHUNK_BYTES, index * CHUNK_BYTES)
                if hashlib.sha256(data).digest() == leaf:
                    self.have.add(index)


def _read_map(path: Path) -> _Map | None:
    limit = MAX_FILE_BYTES // CHUNK_BYTES * (2 * _DIGEST + 1) + MIB
    try:
        saved = _Map.model_validate_json(read_limited(path, limit))
        bytes.fromhex(saved.bitmap)
        bytes.fromhex(saved.leaves)
    except (OSError, ValidationError, ValueError):
        return None
    return saved


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        if hashlib.sha256(data).hexdigest() != sha256:
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

    def known_leaves(self, file: ModelFile) -> tuple[bytes, ...] | None:
        """The chunk digests kept with a partial file, when they are the manifest's."""
        saved = _read_map(self.home.partial / f"{file.sha256}.map")
        if saved is None:
            return None
        leaves = split_leaves(bytes.fromhex(saved.leaves))
        return leaves if leaves_digest(leaves) == file.leaves_sha256 else None

    def fetched_for(self, file: ModelFile, owner: str) -> int:
        """Bytes of a file that came over the network on behalf of an attempt."""
        saved = _read_map(self.home.partial / f"{file.sha256}.map")
        return saved.fetched if saved is not None and saved.owner == owner else 0

    def open_partial(self, file: ModelFile, leaves: Sequence[bytes], owner: str) -> Partial:
        """Begin or go on with a file on behalf of an attempt."""
        return Partial(self.home.partial, file, leaves, owner)

    def save_manifest(self, sha256: str, text: bytes) -> None:
        """Keep a genuine manifest."""
        with _disk("manifest"):
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


def split_leaves(joined: bytes) -> tuple[bytes, ...]:
    """Concatenated digests, taken apart."""
    return tuple(joined[i : i + _DIGEST] for i in range(0, len(joined), _DIGEST))
