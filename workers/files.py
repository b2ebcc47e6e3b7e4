"""Small file work: hashing, and writing so that a crash leaves the old or the new."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from schemas.measure import ModelFile
from schemas.transfer import CHUNK_BYTES, leaves_digest, leaves_of

STALE_SECONDS = 24 * 3600.0
"""Nothing takes so long to make as this is long."""


def sha256_bytes(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def blocks_of(path: Path) -> Iterator[bytes]:
    """The consecutive 64 KiB chunks of a file."""
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            yield block


def describe(path: Path) -> ModelFile:
    """A file as the manifest names it: size, hash, and the hash of its chunk hashes."""
    return ModelFile(
        path=path.name,
        size=path.stat().st_size,
        sha256=sha256_file(path),
        leaves_sha256=leaves_digest(leaves_of(blocks_of(path))),
    )


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file by way of a temporary one: fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def drop_stale(folder: Path) -> None:
    """Remove what killed processes left half made or half removed: old ``.new-``, ``.gone-``."""
    for path in (*folder.glob(".new-*"), *folder.glob(".gone-*")):
        try:
            old = time.time() - path.stat().st_mtime > STALE_SECONDS
        except FileNotFoundError:
            continue
        if old:
            shutil.rmtree(path, ignore_errors=True)
