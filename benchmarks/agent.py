"""What the agent costs a device that does nothing else, and what a swap costs those who infer.

Ours is the real agent with a small model, connected by mutual TLS to a broker, or a program that
uses ``Edge``. The baseline is a bare script with the same net, numpy, ONNX Runtime and paho over
the same TLS, without updates, telemetry or trust.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import _agent_rig as rig
from benchmarks._agent_swap import swap_latencies
from benchmarks._harness import Options, Report, alternate, main

WHAT = "the agent against a bare script: memory, CPU at rest, start; a swap under 200 req/s"
UNITS = {
    "agent_rss": "MiB",
    "agent_idle_cpu_percent": "%",
    "agent_connected": "s",
    "agent_first_answer": "s",
}
DAY = 86_400.0
HEARTBEAT, WINDOW = 60.0, 60.0
"""Seconds; as on a device in use."""


class Bench:
    """Takes the measurements in one rig, and keeps what explains them."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.rest = 3.0 if quick else 60.0
        self.rig = rig.Rig(folder, heartbeat=HEARTBEAT)
        self.details: dict[str, float] = {}

    def ours(self) -> Mapping[str, float]:
        """The agent."""
        with self.rig.agent("--window", f"{WINDOW:g}") as (process, connected):
            time.sleep(2.0)  # what a start leaves to do
            relay, pid = self.rig.relay, process.pid
            up, disk, waits = relay.up, rig.written(pid), rig.switches(pid)
            cpu = self._idle(pid)
            self.details |= {
                "rest_seconds": self.rest,
                "disk_bytes_a_day": (rig.written(pid) - disk) * DAY / self.rest,
                "wakeups_per_second": (rig.switches(pid) - waits) / self.rest,
                "wire_bytes_up_a_day": (relay.up - up) * DAY / self.rest,
                **{f"agent_{name}": value for name, value in rig.memory(pid).items()},
            }
            rss = rig.memory(pid)["VmRSS"]
        answer = self.rig.first_answer(ours=True)
        return _figures(rss, cpu, connected, answer)

    def bare(self) -> Mapping[str, float]:
        """The bare script."""
        with self.rig.bare() as (process, connected):
            time.sleep(2.0)
            cpu = self._idle(process.pid)
            rss = rig.memory(process.pid)["VmRSS"]
        return _figures(rss, cpu, connected, self.rig.first_answer(ours=False))

    def _idle(self, pid: int) -> float:
        """Percent of a core."""
        before, began = rig.cpu_seconds(pid), time.perf_counter()
        time.sleep(self.rest)
        return 100 * (rig.cpu_seconds(pid) - before) / (time.perf_counter() - began)


def _figures(rss: float, cpu: float, connected: float, answer: float) -> Mapping[str, float]:
    values = (rss, max(cpu, 1e-6), connected, answer)
    return dict(zip(UNITS, values, strict=True))


def run(options: Options) -> Report:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder:
        bench = Bench(Path(folder) / "agent", quick=options.quick)
        try:
            figures = alternate(bench.ours, bench.bare, rounds=options.rounds, units=UNITS)
        finally:
            bench.rig.close()
        swap, told = swap_latencies(
            Path(folder) / "swap", seconds=2.0 if options.quick else 20.0, rounds=options.rounds
        )
    return Report(figures={**figures, "swap_p99": swap}, details={**bench.details, **told})


if __name__ == "__main__":
    main(run, what=WHAT, rounds=3)
