"""Chunks that are on the device already, in other files: copied instead of fetched.

Weights lie at the same places in the versions of a model, so a chunk of a layer that did not
change has the same digest in both.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from edge_client.chore import Going
from edge_client.inlet import Sink
from edge_client.leaves import Leaves
from edge_client.partial import Partial
from schemas.transfer import CHUNK_BYTES


def copy_chunks(
    partial: Partial, sources: tuple[Path, ...], leaves: Leaves, going: Going, sink: Sink
) -> int:
    """Put in place what complete files hold of a partial one.

    Args:
        partial: the file that lacks them.
        sources: complete files, named by their SHA-256. One that cannot be read is left out.
        leaves: where digests are kept.
        going: asked before each chunk; no ends it.
        sink: takes the chunks; each is checked.

    Returns:
        How many chunks were placed.
    """
    wanted: dict[bytes, list[int]] = {}
    for index, leaf in enumerate(partial.leaves):
        if partial.wants(index):
            wanted.setdefault(leaf, []).append(index)
    placed = 0
    for path in sources:
        with contextlib.suppress(FileNotFoundError):
            found = leaves.of(path, going) or ()
            hits = [index for index, leaf in enumerate(found) if leaf in wanted]
            if hits:
                placed += _copy(path, hits, found, wanted, sink, going)
    return placed


def _copy(
    path: Path,
    hits: list[int],
    leaves: tuple[bytes, ...],
    wanted: dict[bytes, list[int]],
    sink: Sink,
    going: Going,
) -> int:
    placed = 0
    with path.open("rb", buffering=0) as file:
        for hit in hits:
            if not going():
                break
            file.seek(hit * CHUNK_BYTES)
            data = file.read(CHUNK_BYTES)
            indices = wanted.pop(leaves[hit], ())
            placed += sum(sink.take(index, data, None, fetched=False) for index in indices)
    return placed
