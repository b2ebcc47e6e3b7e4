"""The artifact store: files named by the SHA-256 of their content.

``ab/abcdef…`` holds the bytes, ``ab/abcdef….leaves`` the digests of their 64 KiB
chunks. A name is only ever built from a digest that has been checked, so nothing a
user sends becomes part of a path. A file appears whole, by a rename, or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from orchestrator.errors import DigestMismatch, Invalid, NotFound, TooLarge, Unavailable
from orchestrator.home import sync_folder, write_atomic
from schemas.api import Stored
from schemas.transfer import CHUNK_BYTES, chunk_count

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DIGEST_BYTES = 32
_OPEN_FILES = 32
_STALE_SECONDS = 86400.0


class _OpenFile:
    """A descriptor that is closed when the last one who reads from it lets go."""

    __slots__ = ("descriptor", "size")

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self.descriptor).st_size

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.descriptor)


class _Leaves:
    """Digests of consecutive 64 KiB chunks of a stream that is cut anyhow."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._filled = 0
        self.digests = bytearray()

    def update(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            part = view[: CHUNK_BYTES - self._filled]
            self._hash.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == CHUNK_BYTES:
                self.finish()

    def finish(self) -> None:
        if self._filled:
            self.digests += self._hash.digest()
            self._hash = hashlib.sha256()
            self._filled = 0


class ArtifactStore:
    """Artifacts in a folder. Every method may be called from any thread.

    Args:
        root: the folder; made when it is not there.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / "tmp"
        self._temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()
        self._sweep()

    def put(self, stream: Iterable[bytes], sha256: str, max_size: int) -> Stored:
        """Store a stream under its digest. Storing the same bytes again changes nothing.

        Args:
            stream: the bytes, in pieces of any size.
            sha256: what they must hash to, in hex.
            max_size: the most bytes that are taken.

        Raises:
            Invalid: ``sha256`` is not a digest.
            DigestMismatch: they hash to something else; nothing is kept.
            TooLarge: they are more than ``max_size``; nothing is kept.
            Unavailable: the disk is full.
        """
        final = self.path(sha256)
        temporary = self._temporary / secrets.token_hex(16)
        try:
            with temporary.open("xb") as file:
                size, leaves = _copy(stream, file, sha256, max_size)
                created = not final.exists()
                if created:
                    file.flush()
                    os.fsync(file.fileno())
            if created:
                final.parent.mkdir(mode=0o700, exist_ok=True)
                write_atomic(_leaves_path(final), leaves)
                temporary.chmod(0o600)
                temporary.replace(final)
                sync_folder(final.parent)
                sync_folder(self._root)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            msg = "the disk of the artifact store is full"
            raise Unavailable(msg, hint=f"make room below {self._root}") from error
        finally:
            temporary.unlink(missing_ok=True)
        return Stored(sha256=sha256, size=size, created=created)

    def path(self, sha256: str) -> Path:
        """Where an artifact lies, or would.

        Raises:
            Invalid: ``sha256`` is not a digest.
        """
        if not _DIGEST.fullmatch(sha256):
            msg = f"not a SHA-256 digest (64 lower-case hex characters): {sha256[:80]!r}"
            raise Invalid(msg)
        return self._root / sha256[:2] / sha256

    def exists(self, sha256: str) -> bool:
        """Whether it is stored."""
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int:
        """Its length in bytes; raises NotFound."""
        return self._handle(sha256).size

    def open(self, sha256: str) -> BinaryIO:
        """Open it for reading; the caller closes it. Raises NotFound."""
        try:
            return self.path(sha256).open("rb")
        except FileNotFoundError:
            raise _missing(sha256) from None

    def read_chunk(self, sha256: str, index: int) -> bytes:
        """Its chunk number ``index`` (64 KiB; the last may be shorter).

        Raises:
            NotFound: there is no such artifact, or it has fewer chunks.
        """
        handle = self._handle(sha256)
        if not 0 <= index < chunk_count(handle.size):
            msg = f"artifact {sha256} has {chunk_count(handle.size)} chunks, so none with {index}"
            raise NotFound(msg)
        return os.pread(handle.descriptor, CHUNK_BYTES, index * CHUNK_BYTES)

    def leaves(self, sha256: str) -> list[bytes]:
        """The SHA-256 digests of its chunks, 32 bytes each.

        They were written when it was stored; were they lost, they are computed again
        from bytes that still have the artifact's digest.

        Raises:
            NotFound: there is no such artifact.
            DigestMismatch: the stored bytes are damaged.
        """
        path = self.path(sha256)
        count = chunk_count(self.size(sha256))
        try:
            flat = _leaves_path(path).read_bytes()
        except FileNotFoundError:
            flat = b""
        if len(flat) != count * _DIGEST_BYTES:
            flat = self._recompute(sha256)
        return [flat[i : i + _DIGEST_BYTES] for i in range(0, len(flat), _DIGEST_BYTES)]

    def _recompute(self, sha256: str) -> bytes:
        with self.open(sha256) as file:
            size = os.fstat(file.fileno()).st_size
            _, leaves = _copy(_pieces(file), None, sha256, size)
        write_atomic(_leaves_path(self.path(sha256)), leaves)
        return leaves

    def _handle(self, sha256: str) -> _OpenFile:
        path = self.path(sha256)
        with self._lock:
            handle = self._open.get(sha256)
            if handle is None:
                try:
                    handle = _OpenFile(path)
                except FileNotFoundError:
                    raise _missing(sha256) from None
                self._open[sha256] = handle
            self._open.move_to_end(sha256)
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        return handle

    def _sweep(self) -> None:
        """Remove what uploads that were killed long ago have left."""
        horizon = time.time() - _STALE_SECONDS
        for path in self._temporary.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < horizon:
                    path.unlink()


def _copy(
    stream: Iterable[bytes], file: BinaryIO | None, sha256: str, max_size: int
) -> tuple[int, bytes]:
    """Hash a stream, writing it where a file is given; answers (size, leaf digests)."""
    whole, leaves, size = hashlib.sha256(), _Leaves(), 0
    for piece in stream:
        size += len(piece)
        if size > max_size:
            msg = f"an upload is larger than the {max_size} bytes that are allowed"
            raise TooLarge(msg)
        whole.update(piece)
        leaves.update(piece)
        if file is not None:
            file.write(piece)
    if whole.hexdigest() != sha256:
        msg = f"the bytes have the SHA-256 {whole.hexdigest()}, not {sha256}"
        raise DigestMismatch(msg, hint="send the file again, whole")
    leaves.finish()
    return size, bytes(leaves.digests)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(1024 * 1024):
        yield piece


def _leaves_path(path: Path) -> Path:
    return path.with_name(path.name + ".leaves")


def _missing(sha256: str) -> NotFound:
    return NotFound(f"there is no artifact {sha256}")
