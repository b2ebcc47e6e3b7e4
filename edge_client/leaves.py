"""The chunk digests of files, kept on the disk so that no file is hashed for them twice.

Nothing rests on them: those of a file that is wanted are checked against the manifest when they
are read, those of a file at hand lead to chunks that are checked one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_client.errors import UsageError
from edge_client.files import read_limited, write_atomic
from schemas.measure import MAX_FILE_BYTES
from schemas.transfer import CHUNK_BYTES, chunk_count

DIGEST_BYTES = 32
_LIMIT = chunk_count(MAX_FILE_BYTES) * DIGEST_BYTES


@dataclass(frozen=True, slots=True)
class Leaves:
    """Digests by file, in a folder of their own: concatenated, under the file's SHA-256."""

    folder: Path

    def read(self, sha256: str) -> tuple[bytes, ...] | None:
        """Those of a file; None when they are not kept, or cut short."""
        try:
            joined = read_limited(self.folder / sha256, _LIMIT)
        except (OSError, UsageError):
            return None
        return split_leaves(joined) if joined and len(joined) % DIGEST_BYTES == 0 else None

    def keep(self, sha256: str, leaves: Sequence[bytes]) -> None:
        """Keep those of a file. They need not survive a power cut: they can be had again."""
        write_atomic(self.folder / sha256, b"".join(leaves), mode=0o600, durable=False)

    def of(self, path: Path, going: Callable[[], bool]) -> tuple[bytes, ...] | None:
        """Those of a complete file, computed and kept at the first time.

        Args:
            path: the file, whose name is its SHA-256.
            going: asked before each chunk; no ends it, with None.

        Raises:
            OSError: the file cannot be read.
        """
        kept = self.read(path.name)
        if kept is not None and len(kept) == chunk_count(path.stat().st_size):
            return kept
        found: list[bytes] = []
        with path.open("rb", buffering=0) as file:
            while going() and (block := file.read(CHUNK_BYTES)):
                found.append(hashlib.sha256(block).digest())
        if not going():
            return None
        self.keep(path.name, found)
        return tuple(found)

    def forget_all_but(self, names: set[str]) -> None:
        """Remove those of files that are gone."""
        for path in self.folder.iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)


def split_leaves(joined: bytes) -> tuple[bytes, ...]:
    """Concatenated digests, taken apart."""
    return tuple(joined[i : i + DIGEST_BYTES] for i in range(0, len(joined), DIGEST_BYTES))
