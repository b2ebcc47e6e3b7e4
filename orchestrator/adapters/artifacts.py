"""The artifact store: files named by the SHA-256 of their content.

``ab/abcdef…`` holds the bytes, ``ab/abcdef….leaves`` the digests of their 64 KiB
chunks. A name is only ever built from a digest that has been checked, so nothing a
user sends becomes part of a path. A file appears whole, by a rename, or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from orchestrator.adapters.artifact_stream import (
    DIGEST,
    DIGEST_BYTES,
    LEAVES,
    check_chunk,
    check_digest,
    copy,
    cut,
    missing,
    pieces,
)
from orchestrator.domain.collect import Artifact
from orchestrator.errors import Unavailable
from orchestrator.home import sync_folder, write_atomic
from schemas.api import Stored
from schemas.transfer import CHUNK_BYTES, chunk_count

_OPEN_FILES = 32
_STALE_SECONDS = 86400.0
_FRESH_SECONDS = 3600.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class _OpenFile:
    """A descriptor that is closed when the last one who reads from it lets go."""

    __slots__ = ("descriptor", "size")

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self.descriptor).st_size

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.descriptor)


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
        self._sweep_temporary(time.time() - _STALE_SECONDS)

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
                size, leaves = copy(stream, file, sha256, max_size)
                created = not self._renew(final)
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
            if error.errno not in _FULL:
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
        return self._root / check_digest(sha256)[:2] / sha256

    def exists(self, sha256: str, *, anew: bool = False) -> bool:  # noqa: ARG002 - a folder is always asked
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
            raise missing(sha256) from None

    def read_chunk(self, sha256: str, index: int) -> bytes:
        """Its chunk number ``index`` (64 KiB; the last may be shorter).

        Raises:
            NotFound: there is no such artifact, or it has fewer chunks.
        """
        handle = self._handle(sha256)
        check_chunk(sha256, handle.size, index)
        return os.pread(handle.descriptor, CHUNK_BYTES, index * CHUNK_BYTES)

    def read_into(self, sha256: str, index: int, into: memoryview) -> int:
        """Read a chunk into 64 KiB of the caller's; answers its length.

        Raises:
            NotFound: there is no such artifact, or it has fewer chunks.
        """
        handle = self._handle(sha256)
        check_chunk(sha256, handle.size, index)
        return os.preadv(handle.descriptor, [into], index * CHUNK_BYTES)

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
        if len(flat) != count * DIGEST_BYTES:
            flat = self._recompute(sha256)
        return cut(flat)

    def stored(self) -> Iterator[Artifact]:
        """Every artifact, in no order."""
        for path in self._files():
            if DIGEST.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):
                    found = path.stat()
                    at = datetime.fromtimestamp(found.st_mtime, UTC)
                    yield Artifact(path.name, found.st_size, at)

    def delete(self, sha256: str, before: datetime) -> bool:
        """Delete it, unless it was stored, or stored again, since ``before``.

        Answers whether it is gone by this call.
        """
        path = self.path(sha256)
        with self._lock:
            try:
                if path.stat().st_mtime >= before.timestamp():
                    return False
                # Leaves without their file would be litter; a file without leaves heals.
                _leaves_path(path).unlink(missing_ok=True)
                path.unlink()
            except FileNotFoundError:  # another server on the same folder was first
                return False
            self._open.pop(sha256, None)
        return True

    def sweep(self, before: datetime) -> None:
        """Remove what killed uploads have left since before then."""
        horizon = before.timestamp()
        self._sweep_temporary(horizon)
        for path in self._files():
            litter = path.name.endswith(".tmp") or (
                path.name.endswith(LEAVES) and not path.with_name(path.stem).exists()
            )
            if litter:
                _remove_old(path, horizon)

    def _files(self) -> Iterator[Path]:
        for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            yield from folder.iterdir()

    def _renew(self, path: Path) -> bool:
        """Whether it is there; it then counts as stored just now."""
        with self._lock:
            try:
                age = time.time() - path.stat().st_mtime
            except FileNotFoundError:
                return False
            if age > _FRESH_SECONDS:
                os.utime(path)
        return True

    def _recompute(self, sha256: str) -> bytes:
        with self.open(sha256) as file:
            size = os.fstat(file.fileno()).st_size
            _, leaves = copy(pieces(file), None, sha256, size)
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
                    raise missing(sha256) from None
                self._open[sha256] = handle
            self._open.move_to_end(sha256)
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        return handle

    def _sweep_temporary(self, horizon: float) -> None:
        for path in self._temporary.iterdir():
            _remove_old(path, horizon)


def _remove_old(path: Path, horizon: float) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_mtime < horizon:
            path.unlink()


def _leaves_path(path: Path) -> Path:
    return path.with_name(path.name + LEAVES)
