"""Files on their way: the data, and the bitmap that says which chunks are there.

The data are on the disk (fdatasync) before the bitmap that says so (temporary file,
fsync, rename). The bitmap is a hint: a process that was killed had written chunks that
it does not know of. So whatever is in the data file is hashed again when it is opened,
and nothing that is there and sound is fetched twice. That costs one read and one SHA-256
of what has arrived, at most ``MAX_FILE_BYTES``; holes are skipped.

Chunks are put in place by the threads that bring them: the network's, and those of patches and
HTTPS. All else is asked for by one thread at a time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path

from pydantic import ValidationError

from edge_client.errors import DigestError
from edge_client.files import disk_errors, fsync_folder, read_limited, write_atomic
from edge_client.settings import MIB
from schemas.base import Wire
from schemas.measure import MAX_FILE_BYTES, ModelFile
from schemas.transfer import CHUNK_BYTES, chunk_count, leaves_digest

FLUSH_SECONDS = 0.5
FLUSH_CHUNKS = 256
"""16 MiB: the disk is to work while the network does, not after it."""


CATCH_UP = 2
"""Chunks that came early, and are hashed with each that comes later."""


class ChunkMap(Wire):
    """A partial file's side file: which chunks are there, in hex, low bit first.

    owner: the attempt for which ``fetched`` counts bytes off the network. making: what is
    there beyond the bitmap was made on the device, and is not to be counted.
    """

    bitmap: str
    owner: str
    fetched: int = 0
    making: bool = False


class Placed(Enum):
    """What became of a chunk. GONE: the file is closed."""

    NEW = "new"
    THERE = "there"
    CORRUPT = "corrupt"
    GONE = "gone"


class Partial:
    """A file on its way. ``resume`` it before anything else."""

    def __init__(self, folder: Path, file: ModelFile, leaves: Sequence[bytes], owner: str) -> None:
        """Open it.

        Raises:
            DigestError: the leaves are not the manifest's.
            DiskFullError: there is no room.
        """
        if len(leaves) != chunk_count(file.size) or leaves_digest(leaves) != file.leaves_sha256:
            msg = f"the chunk digests of {file.path} are not those of the manifest"
            raise DigestError(msg)
        self.file = file
        self.leaves = tuple(leaves)
        self.fetched = 0
        self.making = False
        self.path = folder / f"{file.sha256}.data"
        self.missing = len(leaves)
        self._there = bytearray(len(leaves))
        self._whole = hashlib.sha256()
        self._hashed = 0  # chunks that are in it, from the first one on
        self._owner = owner
        self._map = folder / f"{file.sha256}.map"
        self._unsaved = 0
        self._saved_at: float | None = None
        self._placing = threading.Lock()
        self._saving = threading.Lock()
        with disk_errors(file.path):
            self._fd: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)

    @property
    def have(self) -> set[int]:
        """The chunks that are there and verified."""
        return {index for index, there in enumerate(self._there) if there}

    @property
    def bytes_there(self) -> int:
        """Bytes of these chunks."""
        count = self._there.count(1)
        short = -self.file.size % CHUNK_BYTES if self._there[-1] else 0
        return count * CHUNK_BYTES - short

    def place(self, index: int, data: bytes | memoryview) -> Placed:
        """Check a chunk and write it; it counts after the next ``save``. From any thread.

        Raises:
            OSError: it could not be written.
        """
        if self._there[index]:
            return Placed.THERE
        if hashlib.sha256(data).digest() != self.leaves[index]:
            return Placed.CORRUPT
        with self._placing:
            if self._fd is None:
                return Placed.GONE
            written = os.pwrite(self._fd, data, index * CHUNK_BYTES)
            while written < len(data):  # a nearly full disk takes a part, then says so
                at = index * CHUNK_BYTES + written
                written += os.pwrite(self._fd, data[written:], at)
            self._mark(index)
            self._hash(index, data)
            self._unsaved += 1
        return Placed.NEW

    def wants(self, index: int) -> bool:
        """Whether a chunk is missing. From any thread."""
        return 0 <= index < len(self._there) and not self._there[index]

    def save_due(self, now: float) -> bool:
        """Whether enough came, or enough time has passed, since this last said so."""
        if self._saved_at is None:
            self._saved_at = now
        old = now - self._saved_at >= FLUSH_SECONDS
        if not self._unsaved or not (old or self._unsaved >= FLUSH_CHUNKS):
            return False
        self._saved_at = now
        return True

    def save(self) -> None:
        """Data first, then the bitmap that says they are there. From any thread.

        Raises:
            DiskFullError: there is no room for it.
        """
        with self._saving, disk_errors(self.file.path):
            if self._fd is None:
                return
            unsaved, self._unsaved = self._unsaved, 0
            there = bytes(self._there)
            try:
                os.fdatasync(self._fd)
                self._write_map(there)
            except OSError:
                self._unsaved += unsaved
                raise

    def close(self) -> None:
        """Save and close; the file stays for a later attempt."""
        try:
            self.save()
        finally:
            self._shut()

    def finish(self, blobs: Path) -> None:
        """Make it durable, check the hash of the whole, and move it among the complete files.

        The map stays until the next ``collect``: it holds the count of bytes fetched.

        Raises:
            DigestError: the whole has another hash; the partial file is removed.
        """
        with disk_errors(self.file.path), self._saving:
            if self._fd is None:
                return
            os.ftruncate(self._fd, self.file.size)
            os.fsync(self._fd)
            self._write_map(bytes(self._there), durable=False)
            for index in range(self._hashed, len(self.leaves)):
                self._whole.update(self._read(self._fd, index))
        self._shut()
        if self._whole.hexdigest() != self.file.sha256:
            self.remove()
            msg = f"{self.file.path} has not the manifest's SHA-256 although all chunks fit"
            raise DigestError(msg)
        self.path.replace(blobs / self.file.sha256)
        fsync_folder(blobs)

    def remove(self) -> None:
        """Close it, and let nothing of it stay."""
        self._shut()
        self._map.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def resume(self, going: Callable[[], bool] = lambda: True) -> None:
        """Find out which chunks are there and sound, and write it down.

        going: asked before each chunk; no ends it.

        Raises:
            DiskFullError: there is no room for the map.
        """
        saved = read_map(self._map)
        known: set[int] = set() if saved is None else _indices(bytes.fromhex(saved.bitmap))
        for index in sorted(known | self._present()):
            if not going():
                return
            if index < len(self.leaves) and self._sound(index):
                self._mark(index)
        if saved is not None and saved.owner == self._owner:
            # What the bitmap does not know of came after it, for the same attempt.
            unknown = set() if saved.making else self.have - known
            self.fetched = saved.fetched + sum(self._bytes_of(index) for index in unknown)
        self.save()

    def _hash(self, index: int, data: bytes | memoryview) -> None:
        """Go on with the hash of the whole, as far as the file reaches from its beginning.

        So that little of it is left for the end, when everybody waits for it.
        """
        if index == self._hashed:
            self._whole.update(data)
            self._hashed += 1
        for _ in range(CATCH_UP):
            if self._fd is None or self._there[self._hashed : self._hashed + 1] != b"\1":
                return
            self._whole.update(self._read(self._fd, self._hashed))
            self._hashed += 1

    def _read(self, fd: int, index: int) -> bytes:
        return os.pread(fd, self._bytes_of(index), index * CHUNK_BYTES)

    def _mark(self, index: int) -> None:
        if not self._there[index]:
            self._there[index] = 1
            self.missing -= 1

    def _write_map(self, there: bytes, *, durable: bool = True) -> None:
        bits = bytearray(-(-len(there) // 8))
        for index, one in enumerate(there):
            if one:
                bits[index // 8] |= 1 << index % 8
        state = ChunkMap(
            bitmap=bits.hex(), owner=self._owner, fetched=self.fetched, making=self.making
        )
        write_atomic(self._map, state.model_dump_json().encode(), mode=0o600, durable=durable)

    def _shut(self) -> None:
        with self._saving, self._placing:
            fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _present(self) -> set[int]:
        """Chunks of which the data file holds anything."""
        with self._placing:
            if self._fd is None:
                return set()
            size = min(os.fstat(self._fd).st_size, self.file.size)
            extents = list(_extents(self._fd, size))
        return {
            index
            for start, end in extents
            for index in range(start // CHUNK_BYTES, -(-end // CHUNK_BYTES))
        }

    def _sound(self, index: int) -> bool:
        with self._placing:
            if self._fd is None:
                return False
            data = self._read(self._fd, index)
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
    limit = MAX_FILE_BYTES // CHUNK_BYTES // 4 + MIB
    try:
        saved = ChunkMap.model_validate_json(read_limited(path, limit))
        bytes.fromhex(saved.bitmap)
    except (OSError, ValidationError, ValueError):
        return None
    return saved
