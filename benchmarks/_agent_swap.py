"""A program under load while its model is swapped again and again, and the same in peace."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np

from benchmarks._harness import Figure, note
from edge_client import Edge
from edge_client.settings import Home
from edge_client.slots import write_pointers
from tests.fakes.edge_models import linear_onnx, pointing, release, run_onnx, samples
from tests.fakes.edge_traffic import install

RATE, THREADS = 200.0, 4
SWAP_EVERY = 1.0
VERSIONS = (1, 2)


class Load:
    """Threads that ask at a fixed rate, and hold every answer against its version's own."""

    def __init__(self, home: Home) -> None:
        nets = {number: linear_onnx(number) for number in VERSIONS}
        self.slots = {n: install(home, release(data), n) for n, data in nets.items()}
        write_pointers(home.pointer, pointing(active=self.slots[1]))
        self.x = samples(32)
        self.right = {n: run_onnx(data, self.x) for n, data in nets.items()}
        self.home, self.model = home, Edge(home.root).model("digits")
        self.failed = self.mixed = 0
        self.answered: dict[int, int] = dict.fromkeys(VERSIONS, 0)

    def latencies(self, seconds: float, *, swapping: bool) -> list[float]:
        """Seconds of each request, over so long."""
        until = time.perf_counter() + seconds
        found: list[list[float]] = [[] for _ in range(THREADS)]
        threads = [
            threading.Thread(target=self._ask, args=(kept, number, until))
            for number, kept in enumerate(found)
        ]
        for thread in threads:
            thread.start()
        turn = 0
        while swapping and time.perf_counter() < until:
            turn += 1
            active = self.slots[VERSIONS[turn % 2]]
            write_pointers(self.home.pointer, pointing(active=active))
            time.sleep(SWAP_EVERY)
        for thread in threads:
            thread.join()
        return sorted(one for kept in found for one in kept)

    def _ask(self, kept: list[float], number: int, until: float) -> None:
        due, every = time.perf_counter() + number / RATE, THREADS / RATE
        row = number
        while (now := time.perf_counter()) < until:
            if now < due:
                time.sleep(due - now)
            began, due, row = time.perf_counter(), due + every, (row + 1) % len(self.x)
            try:
                answer = self.model.predict(self.x[row : row + 1])
            except Exception:  # noqa: BLE001 - whatever it is, it is a failed request
                self.failed += 1
                continue
            kept.append(time.perf_counter() - began)
            version = answer.slot.version if answer.slot else 0
            self.answered[version] = self.answered.get(version, 0) + 1
            given = answer.outputs["probabilities"][0]
            if version not in VERSIONS or not np.allclose(given, self.right[version][row], 1e-4):
                self.mixed += 1


def swap_latencies(
    folder: Path, *, seconds: float, rounds: int
) -> tuple[Figure, dict[str, object]]:
    """The 99th percentile of requests while models are swapped, over that in peace."""
    load = Load(Home(folder))
    load.latencies(0.5, swapping=False)
    ours: list[float] = []
    baseline: list[float] = []
    for number in range(rounds):
        for swapping in (True, False) if number % 2 == 0 else (False, True):
            note(f"swap round {number + 1} of {rounds}: {'swapping' if swapping else 'in peace'}")
            took = load.latencies(seconds, swapping=swapping)
            (ours if swapping else baseline).append(1e6 * took[int(0.99 * len(took))])
    load.model.close()
    told = {
        "swap_failed": load.failed,
        "swap_mixed": load.mixed,
        "swap_answers": {str(version): n for version, n in load.answered.items()},
        "swap_requests_per_second": RATE,
    }
    return Figure("us", tuple(ours), tuple(baseline)), told
