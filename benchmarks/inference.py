"""What ``predict`` costs over ONNX Runtime's bare ``session.run``, telemetry on.

Ours is what a program calls: inputs checked against the signature, outputs seen to be finite, the
inference timed, and counted by version, class, confidence and input statistics. The baseline is
``session.run`` on the same session with the feed made beforehand. One thread; one process.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks._harness import ROOT, Options, Report, alternate, main, note
from benchmarks._inference_nets import NETS, loaded
from edge_client.inference import refuse_unsafe
from edge_client.runtime import Runtime
from edge_client.sessions import SessionSettings
from edge_client.telemetry import Windows

WHAT = "predict() with telemetry, against bare session.run on the same session, one thread"
CALLS = {"tiny": 20_000, "small": 10_000, "mobilenet": 150}
CUT_EVERY = 1000
"""Inferences in a window: at 100 a second, one of ten seconds."""

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"arena": False},
    {"spinning": True},
    {"threads": 2},
    {"threads": 2, "spinning": True},
)


class Net:
    """A net, served as on a device, and bare."""

    def __init__(self, name: str, calls: int) -> None:
        _, self.loaded, self.x = loaded(name)
        self._name, self._calls = name, calls
        self._windows = Windows()
        self._runtime = Runtime(self._windows)
        self._runtime.swap(name, self.loaded)
        # The very same session: two of one file may differ by where their memory lies.
        session, feed, names = self.loaded.model.session, {"x": self.x}, ["y"]
        self._bare: Callable[[], object] = lambda: session.run(names, feed)

    def ours(self) -> dict[str, float]:
        """Through the runtime; windows are cut meanwhile, and what that takes is in it."""
        predict, x = self._runtime.predict, self.x
        return self._measured(lambda: predict(x), self._windows.cut)

    def bare(self) -> dict[str, float]:
        """The session alone."""
        return self._measured(self._bare, None)

    def _measured(
        self, call: Callable[[], object], cut: Callable[[], object] | None
    ) -> dict[str, float]:
        for _ in range(max(5, self._calls // 20)):
            call()
        times, clock = np.empty(self._calls), time.perf_counter
        began = clock()
        for i in range(self._calls):
            start = clock()
            call()
            times[i] = clock() - start
            if cut is not None and i % CUT_EVERY == CUT_EVERY - 1:
                cut()
        seconds = clock() - began
        if cut is not None:
            cut()
        p50, p99 = np.quantile(times, (0.5, 0.99)) * 1e6
        return {
            f"predict_{self._name}_p50": float(p50),
            f"predict_{self._name}_p99": float(p99),
            f"predict_{self._name}_throughput": self._calls / seconds,
        }


def _overheads(figures: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Microseconds at p50 beyond the session, and what the aim allows: 5 and 2 %."""
    found = {}
    for name in NETS:
        figure = figures[f"predict_{name}_p50"]
        bare = statistics.median(figure.baseline)
        over = [a - b for a, b in zip(figure.ours, figure.baseline, strict=True)]
        found[name] = {"us": statistics.median(over), "allowed_us": 5 + 0.02 * bare}
    return found


def _sessions(seconds: float, nets: tuple[str, ...]) -> list[dict[str, Any]]:
    """Each setting in a process of its own, so that memory is that of one session."""
    found = []
    for net in nets:
        for settings in SETTINGS:
            note(f"session: {net} {settings}")
            order = {"net": net, "settings": settings, "seconds": seconds, "rate": 20}
            asked = subprocess.run(
                [sys.executable, "-m", "benchmarks._inference_session", json.dumps(order)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            found.append({"net": net, "settings": settings, **json.loads(asked.stdout)})
    return found


def _loads(rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds from a file's bytes to a session, as a device does it: hashed and checked.

    optimized: with a copy that ONNX Runtime had optimized for this processor, hashed as well.
    That is what keeping such copies would give; a device does not.
    """
    found = {}
    for name, make in NETS.items():
        data = make()[0]
        with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder:
            path = Path(folder, "optimized.onnx")
            options = SessionSettings().options()
            options.optimized_model_filepath = str(path)
            ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            optimized = path.read_bytes()
        plain, ready = [], []
        for _ in range(rounds):
            plain.append(_load(data, None))
            ready.append(_load(data, optimized))
        found[name] = {
            "plain_ms": statistics.median(plain) * 1e3,
            "optimized_ms": statistics.median(ready) * 1e3,
        }
    return found


def _load(data: bytes, optimized: bytes | None) -> float:
    options = SessionSettings().options()
    began = time.perf_counter()
    hashlib.sha256(data).hexdigest()
    refuse_unsafe(data)
    if optimized is not None:
        hashlib.sha256(optimized).hexdigest()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    ort.InferenceSession(optimized or data, options, providers=["CPUExecutionProvider"])
    return time.perf_counter() - began


def run(options: Options) -> Report:
    """All nets in turn, ours and bare in turn; then the settings of sessions."""
    nets = [
        Net(name, max(20, calls // 20) if options.quick else calls) for name, calls in CALLS.items()
    ]
    units = {
        f"predict_{name}_{what}": unit
        for name in NETS
        for what, unit in (("p50", "us"), ("p99", "us"), ("throughput", "1/s"))
    }
    figures = alternate(
        lambda: {k: v for net in nets for k, v in net.ours().items()},
        lambda: {k: v for net in nets for k, v in net.bare().items()},
        rounds=options.rounds,
        units=units,
    )
    details = {
        "overhead": _overheads(figures),
        "sessions": _sessions(
            0.2 if options.quick else 4.0, ("small",) if options.quick else ("small", "mobilenet")
        ),
        "load": _loads(3 if options.quick else 15),
    }
    return Report(figures, details)


if __name__ == "__main__":
    main(run, what=WHAT, rounds=7)
