"""Accuracy with its uncertainty."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from schemas.measure import Accuracy
from workers.inspection.stream import SetHash, Stream
from workers.optimization.session import infer

Z95 = 1.959963984540054


def wilson(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of a share (Wilson, JASA 22, 1927), clipped to 0..1.

    Raises:
        ValueError: not 0 ≤ correct ≤ n with n ≥ 1.
    """
    if n < 1 or not 0 <= correct <= n:
        msg = f"needs 0 ≤ correct ≤ n and n ≥ 1, not {correct} of {n}"
        raise ValueError(msg)
    p = correct / n
    z2 = z * z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low = 0.0 if correct == 0 else max(0.0, middle - half)
    high = 1.0 if correct == n else min(1.0, middle + half)
    return low, high


def measure(session: Any, stream: Stream) -> Accuracy:
    """The share of a split's samples whose most probable class is theirs, by a session.

    Read as a stream: no split has to fit into memory. Errors as in ``Stream.blocks``.
    """
    digest = SetHash(len(stream))
    correct = 0
    for block in stream.blocks():
        digest.update(block)
        correct += int((np.argmax(infer(session, block.x), axis=1) == block.y).sum())
    low, high = wilson(correct, len(stream))
    return Accuracy(
        value=correct / len(stream),
        n=len(stream),
        low=low,
        high=high,
        split=stream.split,
        set_sha256=digest.hexdigest(),
    )
