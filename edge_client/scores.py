"""Class scores of many samples at once: classes, confidence and entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_client.classify import probabilities


@dataclass(frozen=True, slots=True)
class Scored:
    """Of n samples. entropy: over the logarithm of the classes, so 0..1; None of one class."""

    classes: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    entropy: npt.NDArray[np.float64] | None


def score(scores: npt.NDArray[Any]) -> Scored:
    """Classify; a softmax is put over rows that are no probabilities.

    Args:
        scores: [n, classes], finite.
    """
    values, classes = probabilities(scores), scores.argmax(axis=1)
    n, k = values.shape
    confidence = values[np.arange(n), classes]
    if k == 1:
        return Scored(classes, confidence, None)
    # p log p is 0 where p is: the smallest number above it in its place gives that.
    logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    return Scored(classes, confidence, (values * logs).sum(axis=1) / -np.log(k))


def shares(values: npt.NDArray[np.float64], bins: int) -> list[int]:
    """Counts in ``bins`` equal bins of 0..1; what lies beyond counts in the outermost."""
    slots = np.clip((values * bins).astype(np.int64), 0, bins - 1)
    return [int(count) for count in np.bincount(slots, minlength=bins)]
