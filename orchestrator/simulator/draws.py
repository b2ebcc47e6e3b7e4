"""Chance that a seed decides: the same seed, device and question always give the same answer.

Nothing is drawn from a common stream, whose order would follow from the network's.
"""

from __future__ import annotations

import hashlib

import numpy as np

_SCALE = 2.0**-64


def share(seed: int, *what: object) -> float:
    """A number in [0, 1) that follows from the seed and from what is asked."""
    text = "\x1f".join(map(str, (seed, *what))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) * _SCALE


def normal(seed: int, *what: object) -> float:
    """A standard normal number, likewise (Box and Muller 1958)."""
    radius = np.sqrt(-2.0 * np.log(1.0 - share(seed, *what, "r")))
    return float(radius * np.cos(2.0 * np.pi * share(seed, *what, "a")))


def generator(seed: int, *what: int) -> np.random.Generator:
    """A generator of its own for one question."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence((seed, *what))))
