"""Accuracy with its uncertainty, and which samples were right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.measure import Accuracy
from schemas.paired import Outcomes
from workers.inspection.stream import SetHash, Stream
from workers.optimization.session import infer

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Scored:
    """How a variant does on a split.

    accuracy: without its outcomes file. outcomes: the same, sample by sample, so that any
    two variants can be compared in pairs.
    """

    accuracy: Accuracy
    outcomes: Outcomes


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


def score(session: Any, stream: Stream) -> Scored:
    """The share of a split's samples whose most probable class is theirs, by a session.

    Read as a stream: no split has to fit into memory; a bit per sample is kept. Scores that
    are not numbers (NaN) are wrong, whatever class they would be taken for. Errors as in
    ``Stream.blocks``.
    """
    digest = SetHash(len(stream))
    right: list[bytes] = []
    carried = np.zeros(0, dtype=np.bool_)
    correct = 0
    for block in stream.blocks():
        digest.update(block)
        scores = infer(session, block.x)
        hits = (np.argmax(scores, axis=1) == block.y) & ~np.isnan(scores).any(axis=1)
        correct += int(hits.sum())
        carried = np.concatenate([carried, hits])
        whole = len(carried) // 8 * 8
        right.append(np.packbits(carried[:whole]).tobytes())
        carried = carried[whole:]
    right.append(np.packbits(carried).tobytes())
    low, high = wilson(correct, len(stream))
    accuracy = Accuracy(
        value=correct / len(stream),
        n=len(stream),
        low=low,
        high=high,
        split=stream.split,
        set_sha256=digest.hexdigest(),
    )
    return Scored(accuracy, Outcomes(len(stream), b"".join(right)))
