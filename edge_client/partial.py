"""Files on their way: the data, and the bitmap that says which chunks are there.

The data are on the disk (fdatasync) before the bitmap that says so (temporary file,
fsync, rename). After a crash the chunks of the bitmap are hashed again, and what is
missing is fetched; what was there is not fetched twice.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from edge_client.errors import DigestError
from edge_client.files import disk_errors, fsync_folder, hash_file, read_limited, write_atomic
from edge_client.settings import MIB
from schemas.base import Wire
from schemas.model import MAX_FILE_BYTES, ModelFile
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
