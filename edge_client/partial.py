"""Files on their way: the data, and the bitmap that says which chunks are there.

The data are on the disk (fdatasync) before the bitmap that says so (temporary file,
fsync, rename). The bitmap is a hint: a process that was killed had written chunks that
it does not know of. So whatever is in the data file is hashed again when it is opened,
and nothing that is there and sound is fetched twice. That costs one read and one SHA-256
of what has arrived, at most ``MAX_FILE_BYTES``; holes are skipped.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from edge_client.errors import DigestError
from edge_client.files import disk_errors, fsync_folder, hash_file, read_limited, write_atomic
from edge_client.settings import MIB
from schemas.base import Wire
from schemas.measure import MAX_FILE_BYTES, ModelFile
from schemas.transfer import CHUNK_BYTES, chunk_count, leaves_digest

FLUSH_SECONDS = 0.5
FLUSH_CHUNKS = 64
_DIGEST = 32


class ChunkMap(Wire):
    """A partial file's side file: which chunks are there, in hex, low bit first.

    owner: the attempt for which ``fetched`` counts bytes off the network.
    """

    leaves: str
    bitmap: str
    owner: str
    fetched: int = 0


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
        with disk_errors(file.path):
            self._fd = os.open(self._data, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                self._resume()
                self.save()
            except BaseException:
                os.close(self._fd)
                raise

    def write(self, index: int, data: bytes) -> None:
        """Write a verified chunk; it counts after the next ``save``."""
        with disk_errors(self.file.path):
            written = 0
            while written < len(data):  # a nearly full disk takes a part, then says so
                at = index * CHUNK_BYTES + written
                written += os.pwrite(self._fd, data[written:], at)
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
        with disk_errors(self.file.path):
            os.fdatasync(self._fd)
            bits = bytearray(-(-len(self.leaves) // 8))
            for index in self.have:
                bits[index // 8] |= 1 << index % 8
            state = ChunkMap(
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
        with disk_errors(self.file.path):
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
        saved = read_map(self._map)
        known: set[int] = set() if saved is None else _indices(bytes.fromhex(saved.bitmap))
        for index in sorted(known | self._present()):
            if index < len(self.leaves) and self._sound(index):
                self.have.add(index)
        if saved is not None and saved.owner == self._owner:
            # What the bitmap does not know of came after it, for the same attempt.
            unknown = sum(self._bytes_of(index) for index in self.have - known)
            self.fetched = saved.fetched + unknown

    def _present(self) -> set[int]:
        """Chunks of which the data file holds anything."""
        size = min(os.fstat(self._fd).st_size, self.file.size)
        return {
            index
            for start, end in _extents(self._fd, size)
            for index in range(start // CHUNK_BYTES, -(-end // CHUNK_BYTES))
        }

    def _sound(self, index: int) -> bool:
        data = os.pread(self._fd, self._bytes_of(index), index * CHUNK_BYTES)
        return hashlib.sha256(data).digest() == self.leaves[index]

    def _bytes_of(self, index: int) -> int:
        return min(CHUNK_BYTES, self.file.size - index * CHUNK_BYTES)


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the first ``size`` bytes of a file are not holes: (start, end), ascending."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # holes to the end
                return
            if error.errno != errno.EINVAL:
                raise
            start, end = at, size  # a file system that does not tell
        if start < size:
            yield start, min(end, size)
        at = end


def _indices(bits: bytes) -> set[int]:
    """The bits that are set, low bit first."""
    return {i for i in range(8 * len(bits)) if bits[i // 8] >> i % 8 & 1}


def read_map(path: Path) -> ChunkMap | None:
    """Read a side file; None when there is none or it is damaged."""
    limit = MAX_FILE_BYTES // CHUNK_BYTES * (2 * _DIGEST + 1) + MIB
    try:
        saved = ChunkMap.model_validate_json(read_limited(path, limit))
        bytes.fromhex(saved.bitmap)
        bytes.fromhex(saved.leaves)
    except (OSError, ValidationError, ValueError):
        return None
    return saved


def split_leaves(joined: bytes) -> tuple[bytes, ...]:
    """Concatenated digests, taken apart."""
    return tuple(joined[i : i + _DIGEST] for i in range(0, len(joined), _DIGEST))
