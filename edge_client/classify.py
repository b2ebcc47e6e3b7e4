"""Class scores as probabilities: one definition for programs, telemetry and post-processing."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

TOLERANCE = 1e-3
"""How far probabilities may be from a sum of 1: INT8 ones are."""


def is_scores(output: Any, n: int) -> TypeGuard[Array]:
    """Whether an output of n samples is scores over classes, [n, classes ≥ 2], of floats."""
    return (
        isinstance(output, np.ndarray)
        and output.ndim == 2  # noqa: PLR2004 - [n, classes]
        and output.shape[0] == n
        and output.shape[1] >= 2  # noqa: PLR2004 - one column is no choice
        and output.dtype.kind == "f"
    )


def probabilities(scores: Array) -> npt.NDArray[np.float64]:
    """Scores [n, classes] as probabilities.

    A row that is none already (a negative value, or a sum that is not 1) gets a softmax. Each
    row is judged alone: a sample's answer must not depend on what else is in its batch.
    """
    values = scores.astype(np.float64)
    raw = (values.min(axis=1) < 0) | (np.abs(values.sum(axis=1) - 1) > TOLERANCE)
    if raw.any():
        logits = values[raw]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        values[raw] = powers / powers.sum(axis=1, keepdims=True)
    return values


def classify(scores: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The class with the highest score, [n], and its probability, [n]; of equals the first."""
    classes = scores.argmax(axis=1)
    return classes, probabilities(scores)[np.arange(len(classes)), classes]
