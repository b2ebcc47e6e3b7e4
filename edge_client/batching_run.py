"""Jobs that run as one, and come apart again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edge_client.batching_desk import Job, Runs
from edge_client.errors import InferenceError
from edge_client.inference import Prediction
from edge_client.pieces import in_pieces


def run_jobs(
    runtime: Runs,
    jobs: Sequence[Job],
    *,
    alone: set[str],
    most: int,
    clock: Callable[[], float],
) -> list[Prediction]:
    """Run jobs of one model as one inference; each one's answer, in their order.

    Args:
        runtime: runs and counts them.
        jobs: of one loaded model, and alike in all but their rows.
        alone: gets the SHA-256 of a model whose outputs do not come apart again.
        most: samples in the first run, as for ``in_pieces``.
        clock: seconds, by which jobs have waited.

    Raises:
        InferenceError: the model failed, or its outputs do not come apart.
    """
    loaded, now = jobs[0].loaded, clock()
    rows = [job.request.rows for job in jobs]
    feed = jobs[0].feed
    if len(jobs) > 1:
        feed = {name: np.concatenate([job.feed[name] for job in jobs]) for name in feed}
    waited = sum((now - job.request.since) * job.request.rows for job in jobs) / sum(rows)
    is_one = len(jobs) == 1
    raw = in_pieces(
        runtime,
        loaded,
        feed,
        sum(rows),
        most,
        clock=clock,
        queue_seconds=max(0.0, waited),
        tried=is_one,
    )
    if is_one:
        return [loaded.model.answer(raw, rows[0], loaded.slot)]
    if any(output.shape[:1] != (sum(rows),) for output in raw):
        alone.add(loaded.slot.sha256)
        msg = "an output has not a row for each sample"
        raise InferenceError(msg)
    return [
        loaded.model.answer([output[end - n : end] for output in raw], n, loaded.slot)
        for n, end in zip(rows, np.cumsum(rows).tolist(), strict=True)
    ]
