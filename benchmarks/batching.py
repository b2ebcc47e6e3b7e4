"""Micro-batching against single runs, by as many callers; and rows of files against a loop.

Callers are threads that each ask for one sample, wait for the answer and ask again. Ours is
``Batcher.predict``; the baseline calls ``Runtime.predict``, each for itself, in its own thread.
Both count in telemetry. The net has one thread of its own (``SessionSettings``).
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks._batch_rows import Rows
from benchmarks._harness import Figure, Options, Report, alternate, main, note
from benchmarks._inference_nets import Net, loaded, packed
from edge_client.batching import Batcher
from edge_client.inference import Inputs, Loaded, Prediction
from edge_client.queueing import BatchSettings
from edge_client.runtime import Runtime
from edge_client.telemetry import Windows

WHAT = "micro-batching against single runs, and rows of files against a loop over session.run"
CALLERS = (1, 8, 32)
NETS = ("wide", "small", "mobilenet")
"""``wide``: layers of 2048, whose weights are fetched from memory for one sample as for 32."""

WORKERS = {"mobilenet": 2}
"""Runs at once, where a batch saves little and a core would idle: two."""

HEADLINE = "wide"


def net_of(name: str) -> tuple[Loaded, npt.NDArray[np.float32]]:
    """A net and an input for it."""
    if name != HEADLINE:
        return loaded(name)[1:]
    net = Net((512,))
    for before in (512, 2048):
        net.add("Gemm", net.random(2048, before), np.zeros(2048, np.float32), transB=1)
        net.add("Relu")
    net.classify(2048, 10)
    return packed(name, (net.model(10), net.shape, 10))[1:]


class Load:
    """A net under the load of some callers. seconds: that one measurement takes."""

    def __init__(self, net: str, callers: int, seconds: float) -> None:
        one, self._x = net_of(net)
        self._net, self._callers, self._seconds = net, callers, seconds
        self._windows = Windows()
        self._runtime = Runtime(self._windows)
        self._runtime.swap(net, one)
        self._settings = BatchSettings(max_batch=32, workers=WORKERS.get(net, 1))
        for _ in range(20):
            self._runtime.predict(self._x)

    def ours(self) -> dict[str, float]:
        """Through a batcher."""
        batcher = Batcher(self._runtime, self._settings)
        try:
            return self._measure(batcher.predict)
        finally:
            batcher.close()

    def baseline(self) -> dict[str, float]:
        """Each for itself."""
        return self._measure(self._runtime.predict)

    def _measure(self, predict: Callable[[Inputs], Prediction]) -> dict[str, float]:
        times: list[list[float]] = [[] for _ in range(self._callers)]
        over = threading.Event()

        def call(mine: list[float]) -> None:
            while not over.is_set():
                start = time.perf_counter()
                predict(self._x)
                mine.append(time.perf_counter() - start)

        threads = [threading.Thread(target=call, args=(mine,)) for mine in times]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        over.wait(self._seconds)
        over.set()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
        self._windows.cut()
        every = np.concatenate(times)
        return {
            "throughput": len(every) / seconds,
            "p50": float(np.percentile(every, 50)) * 1e3,
            "p99": float(np.percentile(every, 99)) * 1e3,
        }


def run(options: Options) -> Report:
    """Measure."""
    seconds = 0.3 if options.quick else 3.0
    figures: dict[str, Figure] = {}
    for net in (HEADLINE,) if options.quick else NETS:
        for callers in CALLERS:
            note(f"{net}, {callers} callers")
            load = Load(net, callers, seconds)
            found = alternate(
                load.ours,
                load.baseline,
                rounds=options.rounds,
                units={"throughput": "1/s", "p50": "ms", "p99": "ms"},
            )
            name = f"batching_{callers}" if net == HEADLINE else f"batching_{net}_{callers}"
            figures |= {f"{name}_{what}": figure for what, figure in found.items()}
    with tempfile.TemporaryDirectory() as folder:
        files = Rows(Path(folder), "small", 5_000 if options.quick else 200_000)
        figures |= alternate(
            lambda: {"batch_rows": files.ours()},
            lambda: {"batch_rows": files.by_hand()},
            rounds=options.rounds,
            units={"batch_rows": "1/s"},
        )
    details = {"workers": WORKERS, "max_batch": 32, "switch_interval": sys.getswitchinterval()}
    return Report(figures, details)


if __name__ == "__main__":
    main(run, what=WHAT, rounds=5)
