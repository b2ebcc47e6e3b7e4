"""A request of more samples than one run may have."""

from __future__ import annotations

import numpy as np

from edge_client.batching_desk import Runs, can_merge
from edge_client.inference import Array, Loaded


def in_pieces(
    runtime: Runs,
    loaded: Loaded,
    feed: dict[str, Array],
    n: int,
    most: int,
    *,
    queue_seconds: float = 0.0,
    tried: bool = True,
) -> list[Array]:
    """Run n samples, at most ``most`` at a time where they come apart again.

    A run that never ends looks like one of very many samples: whoever watches for it
    (``edge_client.watchdog``) would blame the model. Memory is bounded by it, too.

    Args:
        runtime: runs and counts them.
        loaded: with what.
        feed: what ``Model.check`` gave.
        n: samples in it.
        most: samples in one run.
        queue_seconds: as for ``Runtime.infer``.
        tried: likewise.

    Returns:
        The outputs in the signature's order.

    Raises:
        InferenceError: the model failed, on one piece at least.
    """

    def infer(part: dict[str, Array], rows: int) -> list[Array]:
        return runtime.infer(loaded, part, n=rows, queue_seconds=queue_seconds, tried=tried)

    if n <= most or not can_merge(loaded.model):
        return infer(feed, n)
    pieces: list[list[Array]] = []
    for at in range(0, n, most):
        rows = min(most, n - at)
        pieces.append(infer({name: value[at : at + rows] for name, value in feed.items()}, rows))
        if any(output.shape[:1] != (rows,) for output in pieces[-1]):
            return infer(feed, n)
    return [np.concatenate(outputs) for outputs in zip(*pieces, strict=True)]
