"""How long one inference takes: measured, never inferred from the precision.

Variants are measured alternately in short blocks, so that a busy moment of the
machine falls on all of them. They are ranked by thread CPU time, which other
processes disturb less than the wall clock.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.measure import Benchmark
from workers.errors import WorkerError
from workers.optimization.session import PROVIDER, Array, open_session

WARM_UP = 20
BLOCK = 25
ROUNDS = 16
CHILD_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured of one variant. cpu_ms: median thread CPU time of one inference."""

    benchmark: Benchmark
    cpu_ms: float


def host_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """This machine's kind: CPU model, architecture and system."""
    model = platform.processor() or "unknown CPU"
    try:
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
                break
    except OSError:
        pass
    return f"{model}, {platform.machine()}, {platform.system()}, 1 thread"


def profile(
    models: Mapping[str, Path], samples: Array, *, rounds: int = ROUNDS
) -> dict[str, Timing]:
    """Time single inferences of each model, alternated block by block.

    Args:
        models: variant id to file.
        samples: real inputs, (n, …); each inference takes one.
        rounds: blocks of ``BLOCK`` inferences per model.
    """
    sessions = {name: open_session(path) for name, path in models.items()}
    wall: dict[str, list[int]] = {name: [] for name in models}
    cpu: dict[str, list[int]] = {name: [] for name in models}
    for turn in range(-1, rounds):
        for name, session in sessions.items():
            feed = session.get_inputs()[0].name
            out = [session.get_outputs()[0].name]
            for i in range(WARM_UP if turn < 0 else BLOCK):
                one = samples[i % len(samples)][None]
                cpu_before, before = time.thread_time_ns(), time.perf_counter_ns()
                session.run(out, {feed: one})
                after, cpu_after = time.perf_counter_ns(), time.thread_time_ns()
                if turn >= 0:
                    wall[name].append(after - before)
                    cpu[name].append(cpu_after - cpu_before)
    return {name: _timing(wall[name], cpu[name], *load_cost(path)) for name, path in models.items()}


def _timing(wall: list[int], cpu: list[int], load_ms: float, rss_mb: float | None) -> Timing:
    p50, p95, p99 = (float(q) / 1e6 for q in np.percentile(wall, [50, 95, 99]))
    benchmark = Benchmark(
        host=host_name(),
        provider=PROVIDER,
        batch=1,
        runs=len(wall),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        load_ms=load_ms,
        rss_mb=rss_mb,
    )
    return Timing(benchmark, float(np.median(cpu)) / 1e6)


_CHILD = """
import json, re, sys, time
from pathlib import Path
import onnxruntime
from workers.optimization.session import open_session
started = time.perf_counter()
open_session(Path(sys.argv[1]))
load = (time.perf_counter() - started) * 1e3
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps({"load_ms": load, "rss_mb": int(peak[1]) / 1024 if peak else None}))
"""


def load_cost(path: Path) -> tuple[float, float | None]:
    """Milliseconds to load a model, and the peak RSS in MiB, in a process of its own.

    The peak is VmHWM: unlike ru_maxrss it does not begin with the parent's.

    Raises:
        WorkerError: the model cannot be loaded there.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path)],
        capture_output=True,
        text=True,
        timeout=CHILD_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        msg = f"{path.name} cannot be loaded by itself: {lines[-1][:500]}"
        raise WorkerError(msg)
    found = json.loads(done.stdout.splitlines()[-1])
    return float(found["load_ms"]), found["rss_mb"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant that passed its accuracy gate, as far as the order needs it."""

    id: str
    precision: str
    cpu_ms: float


def preference(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """The ids in the order in which they are offered.

    Quantized variants that are not slower than FP32 come first, fastest first; then
    FP32; then what is slower than it, for a device class on which it may not be.
    """
    reference = min((c.cpu_ms for c in candidates if c.precision == "fp32"), default=float("inf"))

    def rank(c: Candidate) -> tuple[int, float, str]:
        if c.precision == "fp32":
            return 1, c.cpu_ms, c.id
        return (0 if c.cpu_ms <= reference else 2), c.cpu_ms, c.id

    return tuple(c.id for c in sorted(candidates, key=rank))
