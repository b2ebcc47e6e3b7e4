"""Whether one model is worse than another on the same samples: paired, with an interval.

Of n samples, ``lost`` are right by the reference alone and ``won`` by the candidate alone;
the drop of accuracy is (lost - won) / n. Its score interval (Tango, Statistics in Medicine
17, 1998) is right for few samples and for no difference at all, where Wald's is not; the
candidate is not inferior when the upper limit stays within the margin (Liu et al.,
Statistics in Medicine 21, 2002).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated

from pydantic import Field

from schemas.base import Wire

_STEPS = 60
"""Halvings of an interval of length 2: finer than a float of that size needs."""


class Paired(Wire):
    """The drop of accuracy against a reference on the same n samples.

    low, high: the score interval, two-sided at ``2 * confidence - 1``, so that ``high`` is
    the one-sided limit at ``confidence``.
    """

    n: Annotated[int, Field(ge=1)]
    lost: Annotated[int, Field(ge=0)]
    won: Annotated[int, Field(ge=0)]
    drop: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Which of n samples a model got right: bit i of byte i // 8, from the highest down."""

    n: int
    bits: bytes

    def __post_init__(self) -> None:
        """Check the length.

        Raises:
            ValueError: there are not as many bytes as n bits need.
        """
        if len(self.bits) != (self.n + 7) // 8:
            msg = f"{self.n} outcomes need {(self.n + 7) // 8} bytes, not {len(self.bits)}"
            raise ValueError(msg)


def compare(reference: Outcomes, candidate: Outcomes, confidence: float = 0.95) -> Paired:
    """Two models on the same samples.

    Raises:
        ValueError: they are not of the same number of samples.
    """
    if reference.n != candidate.n:
        msg = f"{reference.n} and {candidate.n} samples cannot be paired"
        raise ValueError(msg)
    a, b = int.from_bytes(reference.bits), int.from_bytes(candidate.bits)
    return paired(reference.n, (a & ~b).bit_count(), (b & ~a).bit_count(), confidence)


def paired(n: int, lost: int, won: int, confidence: float = 0.95) -> Paired:
    """The drop with its score interval.

    Raises:
        ValueError: not 0 ≤ lost + won ≤ n with n ≥ 1, or not 0.5 ≤ confidence < 1.
    """
    if n < 1 or lost < 0 or won < 0 or lost + won > n or not 0.5 <= confidence < 1:  # noqa: PLR2004
        msg = (
            "needs lost + won ≤ n, n ≥ 1 and 0.5 ≤ confidence < 1, "
            f"not {lost} + {won}, {n} and {confidence}"
        )
        raise ValueError(msg)
    z = NormalDist().inv_cdf(confidence)
    drop = (lost - won) / n
    return Paired(
        n=n,
        lost=lost,
        won=won,
        drop=drop,
        low=-_limit(n, won, lost, z),
        high=_limit(n, lost, won, z),
        confidence=confidence,
    )


def _limit(n: int, lost: int, won: int, z: float) -> float:
    """The largest drop that the score test at z does not refute, by bisection."""
    low, high = (lost - won) / n, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _score(n, lost, won, middle) <= z:
            low = middle
        else:
            high = middle
    return low


def _score(n: int, lost: int, won: int, drop: float) -> float:
    """How many standard errors the observed drop is below ``drop``.

    The variance is that of the most likely shares under ``drop`` (Tango, equation 6).
    """
    a = 2 * n
    b = -lost - won + (2 * n - lost + won) * drop
    c = -won * drop * (1 - drop)
    share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * share + drop * (1 - drop))
    gap = n * drop - (lost - won)
    if gap <= 0:
        return 0.0
    return gap / math.sqrt(variance) if variance > 0 else math.inf
