"""Makes patches of artifacts: fetches both files, plans, and writes the patch, all beside."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from orchestrator.adapters.artifact_stream import Leaves, pieces
from orchestrator.domain.patch_frames import frame
from orchestrator.domain.patch_plan import Bytes, runs
from orchestrator.errors import Unavailable
from orchestrator.services.ports import Artifacts, GivenUp
from schemas.patch import MAX_FRAMES, PatchHeader, encode_frame, encode_header
from schemas.transfer import chunk_count

WORTH = 0.9
"""A patch of more than this share of the file is not worth its memory and its work."""


@dataclass(frozen=True, slots=True)
class Made:
    """``services.ports.MadePatch`` in a temporary file."""

    sha256: str
    leaves_sha256: str
    size: int
    file: BinaryIO

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, a MiB at a time."""
        self.file.seek(0)
        return pieces(self.file)


class FilePatchMaker:
    """``services.ports.PatchMaker`` over the artifact store.

    The files are copied beside, for the store may be a bucket, and mapped into memory. They
    have no names there, so nothing is left of a process that is killed.

    Args:
        artifacts: the store.
        folder: for temporary files; made when it is not there.
    """

    def __init__(self, artifacts: Artifacts, folder: Path) -> None:
        self._artifacts = artifacts
        self._folder = folder

    @contextlib.contextmanager
    def make(self, base: str, target: str, going: Callable[[], bool]) -> Iterator[Made | None]:
        """See ``services.ports.PatchMaker``.

        Raises:
            GivenUp: ``going`` said no.
            NotFound: one of the files is not there.
            Unavailable: there is no room, or the store does not answer.
        """
        with contextlib.ExitStack() as stack:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                one, other = (self._mapped(stack, sha256, going) for sha256 in (base, target))
                made = self._write(stack, one, other, going)
            except OSError as error:
                msg = f"a patch cannot be made in {self._folder}: {error.strerror}"
                raise Unavailable(msg, hint="make room there") from error
            yield made

    def _write(
        self, stack: contextlib.ExitStack, base: Bytes, target: Bytes, going: Callable[[], bool]
    ) -> Made | None:
        file = stack.enter_context(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - the stack does
        header, count = PatchHeader(0, len(base), len(target)), 0
        size = file.write(encode_header(header))
        for run in runs(base, target):
            _check(going)
            found = frame(run, base, target)
            if found is not None:
                size += file.write(encode_frame(found[0])) + file.write(found[1])
                count += 1
        if not count or count > MAX_FRAMES or size >= WORTH * len(target):
            return None
        file.seek(0)
        file.write(encode_header(PatchHeader(count, len(base), len(target))))
        file.seek(0)
        whole, leaves = hashlib.sha256(), Leaves()
        for piece in pieces(file):
            whole.update(piece)
            leaves.update(piece)
        leaves.finish()
        return Made(whole.hexdigest(), hashlib.sha256(leaves.digests).hexdigest(), size, file)

    def _mapped(self, stack: contextlib.ExitStack, sha256: str, going: Callable[[], bool]) -> Bytes:
        """An artifact's bytes; they are read from a copy."""
        file = stack.enter_context(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - the stack does
        for index in range(chunk_count(self._artifacts.size(sha256))):
            _check(going)
            file.write(self._artifacts.read_chunk(sha256, index))
        file.flush()
        if not file.tell():
            return np.empty(0, np.uint8)
        # Not closed by hand: the array holds it, and both go with the last reference.
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _check(going: Callable[[], bool]) -> None:
    if not going():
        raise GivenUp
