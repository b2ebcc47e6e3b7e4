"""What a variant costs: measured, never inferred from its precision.

``costs`` measures several variants together: single inferences and batches timed in turn,
load, first run and memory in processes of their own, energy, size, and where its nodes run.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa

from schemas.measure import Benchmark, Energy
from workers.errors import WorkerError
from workers.optimization.measuring.energy import Rapl, estimated, find_rapl, metered
from workers.optimization.measuring.footprint import Footprint, footprint
from workers.optimization.measuring.host import host_name
from workers.optimization.measuring.timing import (
    ROUNDS,
    Failure,
    Times,
    alternate,
    attempt,
    median_ms,
    percentiles,
)
from workers.optimization.session import PROVIDER, Array, fixed_batch, open_session

BATCHES = (1, 32)
STARTS = 3
"""Processes that load a model: the first of them may find its file not in memory."""

METERED_SECONDS = 0.3
ZSTD_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """What a variant costs on this machine, with one thread.

    benchmarks: of single inferences, then of batches of 32; of a graph of a fixed batch size,
    of that one. cpu_ms: median thread CPU time of the first of them. compressed_bytes: of the
    file by zstd at its usual level.
    """

    benchmarks: tuple[Benchmark, ...]
    cpu_ms: float
    compressed_bytes: int


def costs(
    models: Mapping[str, Path],
    samples: Array | Mapping[str, Array],
    *,
    rounds: int = ROUNDS,
    starts: int = STARTS,
    rapl: Rapl | None = None,
) -> dict[str, Cost | Failure]:
    """Measure variants of one model against each other.

    Args:
        models: variant id to file.
        samples: real inputs (n, …) of the one input, or by name of several.
        rounds: blocks of runs per model and batch size.
        starts: processes in which each is loaded.
        rapl: the meter; looked for when it is left out.

    Returns:
        In the order of ``models``; a failure where one cannot be loaded or run, which the
        others do not suffer from.
    """
    meter = rapl or find_rapl()
    opened = {name: attempt(partial(_open, path, samples)) for name, path in models.items()}
    usable = {name: one for name, one in opened.items() if not isinstance(one, Failure)}
    times: dict[str, list[Times]] = {name: [] for name in usable}
    failed = {name: one for name, one in opened.items() if isinstance(one, Failure)}
    for turn in range(max((len(one.feeds) for one in usable.values()), default=0)):
        runs = {
            name: one.runner(turn)
            for name, one in usable.items()
            if name not in failed and turn < len(one.feeds)
        }
        for name, found in alternate(runs, rounds=rounds).items():
            if isinstance(found, Failure):
                failed[name] = found
            else:
                times[name].append(found)
    result: dict[str, Cost | Failure] = {}
    for name in models:
        if name in failed:
            result[name] = failed[name]
        else:
            result[name] = _cost(models[name], usable[name], times[name], starts, meter)
    return result


def compressed_bytes(path: Path) -> int:
    """The size of a file compressed by zstd."""
    with pa.memory_map(str(path)) as file:
        packed = pa.Codec("zstd", compression_level=ZSTD_LEVEL).compress(file.read_buffer())
    return int(packed.size)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A session, and what it is fed: (batch size, inputs by name for the i-th run)."""

    session: Any
    feeds: tuple[tuple[int, list[dict[str, Array]]], ...]

    def runner(self, turn: int) -> Callable[[int], object]:
        """The i-th inference of a batch size."""
        _, feeds = self.feeds[turn]
        session = self.session
        return lambda i: session.run(None, feeds[i % len(feeds)])


def _open(path: Path, samples: Array | Mapping[str, Array]) -> _Opened:
    session = open_session(path)
    if not isinstance(samples, Mapping):
        samples = {session.get_inputs()[0].name: samples}
    fixed = fixed_batch(session)
    sizes = BATCHES if fixed is None else (fixed,)
    return _Opened(session, tuple((size, parts(samples, size)) for size in sizes))


def parts(samples: Mapping[str, Array], size: int) -> list[dict[str, Array]]:
    """Inputs cut into batches of exactly ``size``, the first samples taken again to fill one.

    Raises:
        ValueError: there are no samples.
    """
    n = min(len(one) for one in samples.values())
    if n == 0:
        msg = "there are no samples to run"
        raise ValueError(msg)
    rows = [np.arange(start, start + size) % n for start in range(0, n, size)]
    return [{name: np.ascontiguousarray(x[r]) for name, x in samples.items()} for r in rows]


def _cost(
    path: Path, opened: _Opened, times: Sequence[Times], starts: int, meter: Rapl | None
) -> Cost | Failure:
    try:
        first = [feeds[0] for _, feeds in opened.feeds]
        alone = footprint(path, first, starts=starts)
    except WorkerError as error:
        return Failure(error.message)
    benchmarks = tuple(
        _benchmark(i, size, times[i], alone, _energy(opened, i, times[i], meter))
        for i, (size, _) in enumerate(opened.feeds)
    )
    return Cost(benchmarks, median_ms(times[0].cpu), compressed_bytes(path))


def _energy(opened: _Opened, turn: int, times: Times, meter: Rapl | None) -> Energy:
    """Of one run. A meter is read over many of them, apart from the timing."""
    found = None
    if meter is not None:
        found = metered(meter, opened.runner(turn), seconds=METERED_SECONDS)
    return found or estimated(median_ms(times.cpu))


def _benchmark(turn: int, batch: int, times: Times, alone: Footprint, energy: Energy) -> Benchmark:
    p50, p95, p99 = percentiles(times.wall)
    return Benchmark(
        host=host_name(),
        arch=platform.machine()[:32],
        provider=PROVIDER,
        batch=batch,
        runs=len(times.wall),
        warm_up=times.warm_up,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        cpu_ms=median_ms(times.cpu),
        load_ms=alone.load_ms,
        first_ms=alone.first_ms if turn == 0 else None,
        rss_mb=alone.rss_mb[turn],
        rss_growth_mb=alone.growth_mb[turn],
        energy=energy,
        nodes=alone.nodes,
        ort=ort.__version__[:32],
    )
