"""Files by their digest: sent up, and fetched in a way that a broken connection harms nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import httpx

from orchestrator.client.errors import AnswerError, Invalid
from orchestrator.client.resources import Resource
from orchestrator.errors import ArgosyError, DigestMismatch
from schemas.api import Stored
from schemas.measure import ModelFile

READ_SECONDS = 60.0
"""Without a byte for so long, a download is taken for dead."""

_PIECE = 1024 * 1024
_PARTIAL = 206


def digest_of(path: Path) -> tuple[str, int]:
    """The SHA-256 of a file in hex, and its size in bytes.

    Raises:
        Invalid: it cannot be read.
    """
    sha, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                sha.update(piece)
                size += len(piece)
    except OSError as error:
        detail = f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
        raise Invalid(detail) from error
    return sha.hexdigest(), size


class Artifacts(Resource):
    """The platform's files, which are named by the SHA-256 of what is in them."""

    def put(self, path: Path) -> Stored:
        """Store a file; once more changes nothing.

        Raises:
            Invalid: it cannot be read.
            DigestMismatch: it was written to meanwhile.
        """
        sha256, _ = digest_of(path)
        return self._transport.put(f"/v1/artifacts/{sha256}", Stored, path)

    def save(
        self,
        file: ModelFile,
        target: Path,
        told: Callable[[int], None] = lambda _count: None,
    ) -> bool:
        """Fetch a file of a version, whole and right, or not at all.

        What a broken download left in ``<target>.part`` is gone on with. A file that is
        there already and right is left as it is.

        Args:
            file: whose bytes are wanted.
            target: where they go; what is there and differs is replaced.
            told: called with the number of bytes, as they come.

        Returns:
            Whether anything had to be fetched.

        Raises:
            DigestMismatch: the platform gave other bytes than the manifest says.
            Invalid: it cannot be written there.
        """
        if is_whole(target, file):
            told(file.size)
            return False
        part = target.with_name(f"{target.name}.part")
        try:
            self._fill(part, file, told)
            _settle(part, target, file)
        except OSError as error:
            detail = f"{target} cannot be written: {(error.strerror or str(error)).lower()}"
            raise Invalid(detail, hint="see the folder's rights and its free space") from error
        return True

    def _fill(self, part: Path, file: ModelFile, told: Callable[[int], None]) -> None:
        have = part.stat().st_size if part.is_file() else 0
        if have >= file.size:
            part.unlink()
            have = 0
        headers = {"Accept": "application/octet-stream"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{file.sha256}"'}
        path = f"/v1/artifacts/{file.sha256}"
        with self._transport.stream(path, {}, headers, READ_SECONDS) as answer:
            goes_on = have > 0 and _starts_at(answer, have)
            told(have if goes_on else 0)
            with part.open("ab" if goes_on else "wb") as out:
                _copy(answer, out, file.size - (have if goes_on else 0), told)
                out.flush()
                os.fsync(out.fileno())


def is_whole(path: Path, file: ModelFile) -> bool:
    """Whether a file is there with the right bytes."""
    try:
        if not path.is_file() or path.stat().st_size != file.size:
            return False
        return digest_of(path)[0] == file.sha256
    except (OSError, ArgosyError):
        return False


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either the old one or the new one, at any instant.

    Raises:
        Invalid: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with temporary.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        detail = f"{path} cannot be written: {(error.strerror or str(error)).lower()}"
        raise Invalid(detail, hint="see the folder's rights and its free space") from error


def _starts_at(answer: httpx.Response, offset: int) -> bool:
    told = answer.headers.get("content-range", "")
    return answer.status_code == _PARTIAL and told.startswith(f"bytes {offset}-")


def _copy(answer: httpx.Response, out: BinaryIO, most: int, told: Callable[[int], None]) -> None:
    for piece in _bounded(answer.iter_bytes(), most):
        out.write(piece)
        told(len(piece))


def _bounded(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    for piece in pieces:
        most -= len(piece)
        if most < 0:
            detail = "the platform sent more bytes than the manifest says"
            raise AnswerError(detail)
        yield piece


def _settle(part: Path, target: Path, file: ModelFile) -> None:
    sha256, size = digest_of(part)
    if sha256 != file.sha256:
        # What is wrong must not be gone on with the next time, unless more is to come.
        if size >= file.size:
            part.unlink()
        came = f"{size} bytes with SHA-256 {sha256[:12]}… came"
        detail = f"{target.name}: {came}, not the {file.size} with {file.sha256[:12]}…"
        raise DigestMismatch(detail, hint="try again; what came was not taken")
    part.replace(target)
