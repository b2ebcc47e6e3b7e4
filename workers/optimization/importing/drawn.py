"""Inputs drawn from a model's signature, where no real ones are given."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from schemas.signature import TensorSpec
from workers.optimization.session import Array

MAX_INPUT_BYTES = 1024**3


class TooLargeError(ValueError):
    """An input that no device could hold."""


def draw(specs: Iterable[TensorSpec], seed: int) -> dict[str, Array]:
    """One feed, by name, that follows from the seed alone.

    Numbers are spread evenly over an input's ``range``; where it has none, floats over
    0..1, and whole numbers are 0 or 1, which are in the range of any index.

    Args:
        specs: inputs of concrete shapes.
        seed: of the draw.

    Raises:
        TooLargeError: an input would need more than ``MAX_INPUT_BYTES``.
    """
    chance = np.random.default_rng(seed)
    return {spec.name: _one(spec, chance) for spec in specs}


def _one(spec: TensorSpec, chance: np.random.Generator) -> Array:
    dtype = np.dtype(spec.dtype)
    needed = math.prod(spec.shape) * dtype.itemsize
    if needed > MAX_INPUT_BYTES:
        msg = f"input {spec.name} alone would need {needed / 2**30:,.1f} GiB"
        raise TooLargeError(msg)
    low, high = spec.range or (0.0, 1.0)
    if dtype.kind == "f":
        return np.asarray(chance.uniform(low, high, spec.shape)).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(chance.integers(0, 2, spec.shape)).astype(dtype)
    whole = np.iinfo(dtype)
    least, most = max(math.ceil(low), whole.min), min(math.floor(high), whole.max)
    return np.asarray(
        chance.integers(least, most, spec.shape, dtype=np.int64, endpoint=True)
    ).astype(dtype)


def concrete(spec: TensorSpec, sizes: tuple[int, ...]) -> TensorSpec:
    """A spec with each -1 of its shape replaced by what stands there in ``sizes``."""
    return spec.model_copy(update={"shape": sizes})
