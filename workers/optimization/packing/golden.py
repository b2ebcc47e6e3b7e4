"""Golden vectors of any model: every input and output, in the signature's order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from schemas.measure import Golden
from schemas.signature import Signature
from workers.files import describe, write_atomic
from workers.optimization.packing.package import GOLDEN_SAMPLES, TOLERANCE, npz
from workers.optimization.session import Array, open_session

MAX_GOLDEN_BYTES = 8 * 1024**2
"""Every device fetches them beside the model."""


def golden_of(
    model: Path, variant: str, precision: str, signature: Signature, feed: Mapping[str, Array]
) -> Golden:
    """Run inputs through a variant's own file and keep what came out beside it.

    The tolerance is that of a probability, times the largest output where that is above 1:
    what a model made elsewhere gives need not be probabilities.

    Args:
        model: the variant's file.
        variant: its id.
        precision: decides the tolerance.
        signature: names the outputs that are kept.
        feed: inputs by name.
    """
    names = [spec.name for spec in signature.outputs]
    outputs = open_session(model).run(names, dict(feed))
    inputs = {f"in_{i}": feed[spec.name] for i, spec in enumerate(signature.inputs)}
    path = model.parent / f"golden-{variant}.npz"
    write_atomic(path, npz(inputs | {f"out_{i}": out for i, out in enumerate(outputs)}))
    first = feed[signature.inputs[0].name]
    largest = max(float(np.abs(out.astype(np.float64)).max(initial=0)) for out in outputs)
    return Golden(
        file=describe(path),
        samples=len(first) if first.ndim else 1,
        tolerance=TOLERANCE[precision] * max(1.0, largest),
    )


def golden_count(bytes_each: int) -> int:
    """How many samples fit, of inputs and outputs of so many bytes together."""
    return max(1, min(GOLDEN_SAMPLES, MAX_GOLDEN_BYTES // max(1, bytes_each)))
