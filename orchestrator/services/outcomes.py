"""Which samples a variant got right, as they lie in the artifact store."""

from __future__ import annotations

from orchestrator.services.ports import Artifacts
from schemas.measure import Accuracy
from schemas.paired import Outcomes
from schemas.transfer import chunk_count

MAX_BYTES = 16 * 1024**2
"""Of 134 million samples; they are read into memory."""


def read(accuracy: Accuracy, store: Artifacts) -> Outcomes:
    """The outcomes behind a figure, which has some.

    Raises:
        ValueError: they are too large, or not of as many samples; in words.
        NotFound: they are not in the store.
    """
    file = accuracy.outcomes
    if file is None:
        msg = "no outcomes were kept"
        raise ValueError(msg)
    size = store.size(file.sha256)
    if size > MAX_BYTES:
        msg = f"they have {size} bytes; at most {MAX_BYTES} are read"
        raise ValueError(msg)
    bits = whole(file.sha256, store)
    kept = Outcomes(accuracy.n, bits)
    spare = 8 * len(bits) - kept.n
    if bits[-1] & ((1 << spare) - 1):
        msg = f"bits are set beyond the {kept.n} samples"
        raise ValueError(msg)
    return kept


def whole(sha256: str, store: Artifacts) -> bytes:
    """A file's bytes. Raises NotFound."""
    count = chunk_count(store.size(sha256))
    return b"".join(store.read_chunk(sha256, index) for index in range(count))
