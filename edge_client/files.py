"""Atomic writes, bounded reads, hashes, and what a full disk is called."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from edge_client.errors import DiskFullError, UsageError

TORN_SECONDS = 3600.0
"""No write takes as long."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace a file whole: a reader, or a restart, sees the old bytes or the new.

    durable: also survive a power cut (fsync of the file and of its folder).
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temp.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    if durable:
        fsync_folder(path.parent)


def forget_torn(*folders: Path) -> None:
    """Remove what processes that were killed in ``write_atomic`` left, an hour ago or before."""
    for folder in folders:
        with contextlib.suppress(OSError):
            for path in folder.glob(".*.tmp"):
                if time.time() - path.stat().st_mtime > TORN_SECONDS:
                    path.unlink(missing_ok=True)


def read_limited(path: Path, limit: int) -> bytes:
    """Read a file of at most ``limit`` bytes.

    Raises:
        UsageError: it is larger.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        msg = f"{path} is larger than {limit} bytes"
        raise UsageError(msg)
    return data


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Say it plainly when the disk is full.

    Raises:
        DiskFullError: there was no room for ``what``.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            msg = f"the disk is full: {what}"
            raise DiskFullError(msg) from error
        raise
