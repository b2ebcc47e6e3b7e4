"""A request of more samples than one run may have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_client.batching_desk import Runs, can_merge
from edge_client.inference import Array, Loaded

_QUICK = 0.05
"""Seconds of a run after which the next one may be longer."""


def in_pieces(
    runtime: Runs,
    loaded: Loaded,
    feed: dict[str, Array],
    n: int,
    most: int,
    *,
    clock: Callable[[], float],
    queue_seconds: float = 0.0,
    tried: bool = True,
) -> list[Array]:
    """Run n samples in several runs where they come apart again: each a short one.

    A run that never ends looks like one of very many samples: whoever watches for it
    (``edge_client.watchdog``) would blame the model. Memory is bounded by it, too.

    Args:
        runtime: runs and counts them.
        loaded: with what.
        feed: what ``Model.check`` gave.
        n: samples in it.
        most: samples in the first run; twice as many in the next where it was quick.
        clock: seconds.
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
    at = 0
    while at < n:
        rows, start = min(most, n - at), clock()
        pieces.append(infer({name: value[at : at + rows] for name, value in feed.items()}, rows))
        if any(output.shape[:1] != (rows,) for output in pieces[-1]):
            return infer(feed, n)
        at += rows
        most *= 2 if clock() - start < _QUICK else 1
    return [np.concatenate(outputs) for outputs in zip(*pieces, strict=True)]
