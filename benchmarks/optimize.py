"""Optimization: our variants against the same nets by other tools' defaults.

Each net is trained once (kept in build/benchmarks/nets) and exported once; every side begins
from that one file. Ours is what a job's pipeline makes of it, the search included. All files
of a net are then timed in turn, with one thread, and judged on the same held-out samples.
Tools that are not installed are left out; ARGOSY_PEERS_PYTHON names a Python that has them.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._harness import ROOT, Figure, Options, Report, main, note
from benchmarks._optimize_nets import NETS, QUICK, Net, trained, within
from schemas.paired import Outcomes, compare
from workers.inspection.stream import Stream
from workers.optimization.executor import LocalExecutor
from workers.optimization.measuring.evaluate import score
from workers.optimization.measuring.latency import Cost, costs
from workers.optimization.pipeline import build, training_of
from workers.optimization.session import open_session
from workers.task import Task

WHAT = "optimize: our variants against FP32 and against other tools' defaults"
PEERS = ("ort-static", "ort-dynamic", "nncf", "olive")
PEER_SECONDS = 900
SAMPLES = 64
CALIBRATION = 256
FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class Measured:
    """One file of a net.

    p50_ms, cpu_ms: by batch size, a value per round. drop: of accuracy on the test split
    against FP32, with its 95 % interval.
    """

    side: str
    size: int
    packed: int
    accuracy: float
    drop: tuple[float, float, float]
    n: int
    p50_ms: dict[int, list[float]]
    cpu_ms: dict[int, list[float]]


def measure(options: Options) -> Report:
    """Every net, or a small one alone."""
    kept = ROOT / "build" / "benchmarks" / "nets"
    nets = {QUICK.name: QUICK} if options.quick else NETS
    found: dict[str, list[Measured]] = {}
    details: dict[str, Any] = {"threads": 1, "samples_per_run": [1, 32]}
    for name, net in nets.items():
        with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder:
            found[name], extra = _net(net, kept, Path(folder), options)
        details[name] = {**extra, "sides": [_row(one, found[name]) for one in found[name]]}
        note(_table(name, details[name]["sides"]))
    figures: dict[str, Figure] = {}
    for name, sides in found.items():
        figures.update(_figures(name, sides))
    return Report(figures, details)


def _net(
    net: Net, kept: Path, folder: Path, options: Options
) -> tuple[list[Measured], dict[str, Any]]:
    with within(net) as task:
        checkpoint = trained(net, task, kept)
        spec = net.spec()
        note(f"{net.name}: optimizing")
        began = time.perf_counter()
        package = build(
            task,
            spec,
            training_of(checkpoint, net.epochs),
            folder / "ours",
            enter=lambda _: None,
            executor=LocalExecutor(),
        )
        seconds = time.perf_counter() - began
        files = {v.id: package.folder / v.file.path for v in package.manifest.variants}
        calibration = Stream(task, task.splits().train, "train").spaced(CALIBRATION).x
        peers, missing = _peers(files[FP32], calibration, folder, quick=options.quick)
        sides = _measured({**files, **peers}, task, options.rounds)
        reasons = {one.id: one.reason for one in package.manifest.rejected}
    return sides, {"search_seconds": seconds, "rejected": reasons, "peers_without_result": missing}


def _peers(
    model: Path, calibration: Any, folder: Path, *, quick: bool
) -> tuple[dict[str, Path], dict[str, str]]:
    """The files of the other tools, and why some have none."""
    archive = folder / "calibration.npz"
    np.savez(archive, x=calibration)
    python = os.environ.get("ARGOSY_PEERS_PYTHON", sys.executable)
    made, missing = {}, {}
    for recipe in PEERS[:1] if quick else PEERS:
        out = folder / f"{recipe}.onnx"
        script = ROOT / "benchmarks" / "_optimize_peers.py"
        done = subprocess.run(
            [python, str(script), recipe, str(model), str(archive), str(out)],
            capture_output=True,
            text=True,
            timeout=PEER_SECONDS,
            check=False,
        )
        if done.returncode == 0 and out.exists():
            made[recipe] = out
        else:
            lines = done.stderr.strip().splitlines() or ["no message"]
            missing[recipe] = lines[-1][:300]
            note(f"  {recipe}: {missing[recipe]}")
    return made, missing


def _measured(files: Mapping[str, Path], task: Task, rounds: int) -> list[Measured]:
    """Accuracy on the test split and times of all files, ``rounds`` times in turn."""
    stream = Stream(task, task.splits().test, "test")
    samples = stream.head(SAMPLES).x
    outcomes: dict[str, Outcomes] = {}
    for side, path in list(files.items()):
        try:
            outcomes[side] = score(open_session(path), stream).outcomes
        except Exception as error:  # noqa: BLE001 - a peer's file that does not run has no figures
            note(f"  {side} does not run: {str(error)[:200]}")
    usable = {side: files[side] for side in outcomes}
    times: dict[str, list[Cost]] = {side: [] for side in usable}
    for number in range(rounds):
        note(f"  round {number + 1} of {rounds}")
        for side, cost in costs(usable, samples, starts=1).items():
            if isinstance(cost, Cost):
                times[side].append(cost)
    found = []
    for side, costed in times.items():
        if not costed:
            continue
        paired = compare(outcomes[FP32], outcomes[side], 0.975)
        right = int.from_bytes(outcomes[side].bits).bit_count()
        found.append(
            Measured(
                side=side,
                size=files[side].stat().st_size,
                packed=costed[0].compressed_bytes,
                accuracy=right / outcomes[side].n,
                drop=(paired.drop, paired.low, paired.high),
                n=outcomes[side].n,
                p50_ms={
                    b.batch: [c.benchmarks[i].p50_ms for c in costed]
                    for i, b in enumerate(costed[0].benchmarks)
                },
                cpu_ms={
                    b.batch: [c.benchmarks[i].cpu_ms or 0.0 for c in costed]
                    for i, b in enumerate(costed[0].benchmarks)
                },
            )
        )
    return found


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _row(one: Measured, sides: Sequence[Measured]) -> dict[str, Any]:
    """A side with its ratios to FP32, where a latency of 2 is half the time."""
    base = next(s for s in sides if s.side == FP32)
    return {
        "side": one.side,
        "accuracy": one.accuracy,
        "n": one.n,
        "drop": one.drop[0],
        "drop_low": one.drop[1],
        "drop_high": one.drop[2],
        "bytes": one.size,
        "size": one.size / base.size,
        "zstd": one.packed / base.packed,
        **{
            f"latency_b{batch}": _median(base.cpu_ms[batch]) / _median(values)
            for batch, values in one.cpu_ms.items()
            if batch in base.cpu_ms
        },
        **{f"p50_ms_b{batch}": _median(values) for batch, values in one.p50_ms.items()},
    }


def _figures(name: str, sides: Sequence[Measured]) -> dict[str, Figure]:
    """Ours is the fastest variant that no test refutes within the drop asked for."""
    base = next(s for s in sides if s.side == FP32)
    ours = [s for s in sides if s.side not in PEERS]
    peers = [s for s in sides if s.side in PEERS and s.drop[0] <= MAX_DROP]
    figures: dict[str, Figure] = {}
    for prefix, chosen in (
        (name, [s for s in ours if not s.side.startswith("p")]),
        (f"{name}_pruned", [s for s in ours if s.side.startswith("p")]),
    ):
        if not chosen:
            continue
        best = min(chosen, key=lambda s: _median(s.cpu_ms[1]))
        figures |= _against(prefix, best, base)
    if peers:
        best, peer = (min(some, key=lambda s: _median(s.cpu_ms[1])) for some in (ours, peers))
        figures[f"{name}_latency_b1_to_best_peer"] = _rate(best, peer, 1)
    return figures


MAX_DROP = 0.02


def _against(prefix: str, one: Measured, base: Measured) -> dict[str, Figure]:
    return {
        f"{prefix}_latency_b1": _rate(one, base, 1),
        f"{prefix}_latency_b32": _rate(one, base, 32),
        f"{prefix}_size": Figure("B", (float(one.size),), (float(base.size),)),
        f"{prefix}_accuracy": Figure("", (one.accuracy,), (base.accuracy,)),
    }


def _rate(one: Measured, base: Measured, batch: int) -> Figure:
    """Inferences per second of CPU time, so that a ratio of 2 is half the time."""
    return Figure(
        "1/s",
        tuple(1e3 * batch / ms for ms in one.cpu_ms[batch]),
        tuple(1e3 * batch / ms for ms in base.cpu_ms[batch]),
    )


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{name}: accuracy (drop and its 95 % interval), size, zstd, latency b1, b32"]
    for row in rows:
        b32 = row.get("latency_b32")
        lines.append(
            f"  {row['side']:<24} {row['accuracy']:.4f} ({row['drop']:+.4f}, "
            f"{row['drop_low']:+.4f} to {row['drop_high']:+.4f})  {row['size']:.3f}  "
            f"{row['zstd']:.3f}  {row['latency_b1']:.2f}x  "
            + (f"{b32:.2f}x" if b32 is not None else "-")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    main(measure, what=WHAT, rounds=5)
