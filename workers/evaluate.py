"""Accuracy with its uncertainty."""

from __future__ import annotations

import math

import numpy as np

from schemas.model import Accuracy
from workers.data import Labelled, set_sha256
from workers.session import Array

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


def accuracy(probabilities: Array, data: Labelled, split: str) -> Accuracy:
    """The share of samples whose most probable class is theirs.

    Args:
        probabilities: (n, classes), in the order of ``data``.
        data: the labelled samples.
        split: what they are called.
    """
    if len(probabilities) != len(data):
        msg = f"{len(probabilities)} outputs for {len(data)} samples"
        raise ValueError(msg)
    correct = int((np.argmax(probabilities, axis=1) == data.y).sum())
    low, high = wilson(correct, len(data))
    return Accuracy(
        value=correct / len(data),
        n=len(data),
        low=low,
        high=high,
        split=split,
        set_sha256=set_sha256(data),
    )
