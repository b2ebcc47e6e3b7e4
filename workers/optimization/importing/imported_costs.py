"""What a model of any signature costs: such as cannot be fed by samples cut out of one array."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort

from schemas.measure import Benchmark
from workers.errors import WorkerError
from workers.optimization.measuring.energy import estimated
from workers.optimization.measuring.footprint import footprint
from workers.optimization.measuring.host import host_name
from workers.optimization.measuring.latency import STARTS, Cost, compressed_bytes, costs
from workers.optimization.measuring.timing import (
    ROUNDS,
    Failure,
    Run,
    Times,
    alternate,
    attempt,
    median_ms,
    percentiles,
)
from workers.optimization.session import PROVIDER, Array, open_session


@dataclass(frozen=True, slots=True)
class Feed:
    """Inputs by name. cut: samples lie along the first axis of each, and may be cut out."""

    inputs: Mapping[str, Array]
    cut: bool


def cost_of_each(
    models: Mapping[str, Path], feed: Feed, *, rounds: int = ROUNDS, starts: int = STARTS
) -> dict[str, Cost | Failure]:
    """Measure variants of one model against each other; arguments as of ``latency.costs``.

    A feed that cannot be cut is run as a whole, and counts as a batch of one.
    """
    if feed.cut:
        return costs(models, feed.inputs, rounds=rounds, starts=starts)
    opened: dict[str, Any] = {
        name: attempt(partial(open_session, path)) for name, path in models.items()
    }
    runs = {
        name: _runner(session, feed)
        for name, session in opened.items()
        if not isinstance(session, Failure)
    }
    found = {name: one for name, one in opened.items() if isinstance(one, Failure)} | alternate(
        runs
    )
    return {name: _cost(path, found[name], feed, starts) for name, path in models.items()}


def _runner(session: Any, feed: Feed) -> Run:
    inputs = dict(feed.inputs)
    return lambda _: session.run(None, inputs)


def _cost(path: Path, times: Times | Failure, feed: Feed, starts: int) -> Cost | Failure:
    if isinstance(times, Failure):
        return times
    try:
        alone = footprint(path, [feed.inputs], starts=starts)
    except WorkerError as error:
        return Failure(error.message)
    p50, p95, p99 = percentiles(times.wall)
    benchmark = Benchmark(
        host=host_name(),
        arch=platform.machine()[:32],
        provider=PROVIDER,
        batch=1,
        runs=len(times.wall),
        warm_up=times.warm_up,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        cpu_ms=median_ms(times.cpu),
        load_ms=alone.load_ms,
        first_ms=alone.first_ms,
        rss_mb=alone.rss_mb[0],
        rss_growth_mb=alone.growth_mb[0],
        energy=estimated(median_ms(times.cpu)),
        nodes=alone.nodes,
        ort=ort.__version__[:32],
    )
    return Cost((benchmark,), median_ms(times.cpu), compressed_bytes(path))
