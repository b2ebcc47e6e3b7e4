"""A model of 50 MB to one device, 20 and 50 of them, against other ways to bring the bytes.

Ours is the whole platform and real agents, over mutual TLS: every chunk checked against signed
leaves, journalled, durable. The others bring bytes: ``mosquitto_pub`` to ``mosquitto_sub`` in one
message, which neither resumes nor checks; one chunk at a time, as file streams of AWS IoT and the
firmware updates of ThingsBoard do; aiohttp to curl. The random bytes of each round are new, so
nothing is at hand, and no patch is made of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _transfer_peers as peers
from benchmarks._harness import Figure, Options, Report, alternate, main, note
from benchmarks._transfer_fleet import Cost, Platform, free_port, until

WHAT = "a model to devices, against mosquitto_pub, one chunk at a time, and HTTP"
RTT = 0.05
SETTINGS = {"ARGOSY_PATCH_BYTES": "0", "ARGOSY_HTTPS_LINKS": "false"}


@dataclass
class Bench:
    """What all measurements share. costs: every delivery of ours, by its figure."""

    folder: Path
    platform: Platform
    broker: peers.Broker
    tls: peers.Certificates
    size: int
    seed: int = 0
    costs: dict[str, list[Cost]] = field(default_factory=dict)

    def ours(self, name: str) -> Cost:
        """Deliver a new version to the agents that run."""
        self.seed += 1
        version, size = self.platform.register(self.size, self.seed)
        cost = self.platform.deliver(version, size)
        self.costs.setdefault(name, []).append(cost)
        return cost

    def file(self) -> Path:
        """The same number of other random bytes."""
        self.seed += 1
        path = self.folder / "bytes"
        path.write_bytes(np.random.default_rng(self.seed).bytes(self.size))
        return path

    def rate(self, seconds: float) -> dict[str, float]:
        """As a measurement: MB/s."""
        return {"rate": self.size / seconds / 1e6}


def measure(options: Options) -> Report:
    """All figures."""
    size = 4_000_000 if options.quick else 50_000_000
    fleets = (3,) if options.quick else (20, 50)
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        settings = {**SETTINGS, "ARGOSY_BROADCAST_FROM": str(min(10, fleets[0]))}
        platform = Platform(folder, settings=settings)
        platform.start()
        stack.callback(platform.stop)
        (peer,) = platform.enroll(1)
        tls = peers.certificates(folder / peer)
        broker = stack.enter_context(peers.broker(folder, platform.home))
        bench = Bench(folder, platform, broker, tls, size)
        figures |= _one(bench, peer, options)
        figures |= _far(bench, options)
        for count in fleets:
            figures |= _fleet(bench, count, options)
        growth = None if options.quick else _growth(bench)
        details = {"rss_growth_200mb": growth, "ours": _details(bench.costs)}
    return Report(figures, details)


def _one(bench: Bench, device: str, options: Options) -> dict[str, Figure]:
    out, port = bench.folder / "out", bench.broker.tls_port
    baselines: dict[str, Callable[[], float]] = {
        "one_device_mtls_vs_mosquitto": lambda: peers.mosquitto(
            bench.folder, bench.file(), port, bench.tls
        ),
        "one_device_vs_stop_and_wait": lambda: peers.stop_and_wait(
            bench.file(), out, port, bench.broker.plain_port, bench.tls
        ),
        "one_device_vs_https": lambda: _http(bench, tls=True),
    }
    bench.platform.run([device])
    figures = {name: _rates(bench, name, other, options) for name, other in baselines.items()}
    bench.platform.end_devices()
    bench.platform.run([device], plain=True)
    plain: dict[str, Callable[[], float]] = {
        "one_device_plain_vs_mosquitto": lambda: peers.mosquitto(
            bench.folder, bench.file(), bench.broker.plain_port, None
        ),
        "one_device_plain_vs_sendfile": lambda: _http(bench, tls=False),
    }
    figures |= {name: _rates(bench, name, other, options) for name, other in plain.items()}
    bench.platform.end_devices()
    return figures


def _far(bench: Bench, options: Options) -> dict[str, Figure]:
    """A way of 50 ms there and back, for both."""
    with _delayed(bench.platform.mqtt_port) as ours, _delayed(bench.broker.tls_port) as theirs:
        bench.platform.run(bench.platform.enroll(1, mqtt_port=ours))
        name = "rtt50_vs_stop_and_wait"
        out = bench.folder / "out"
        figure = _rates(
            bench,
            name,
            lambda: peers.stop_and_wait(
                bench.file(), out, theirs, bench.broker.plain_port, bench.tls
            ),
            options,
        )
        bench.platform.end_devices()
    return {name: figure}


def _fleet(bench: Bench, count: int, options: Options) -> dict[str, Figure]:
    """So many devices at once; how long until the last has it, and the server's work for each."""
    bench.platform.run(bench.platform.enroll(count))
    rounds = max(1, options.rounds // 2)
    found = alternate(
        lambda: bench.rate(max(bench.ours(f"fleet{count}").seconds)),
        lambda: bench.rate(
            peers.mosquitto(
                bench.folder, bench.file(), bench.broker.tls_port, bench.tls, receivers=count
            )
        ),
        rounds=rounds,
        units={"rate": "MB/s each"},
    )
    bench.platform.end_devices()
    one = [c.cpu_server for name, costs in bench.costs.items() if "one" in name for c in costs]
    each = [cost.cpu_server / count for cost in bench.costs[f"fleet{count}"]]
    cpu = Figure("server CPU s a device", tuple(each), (statistics.median(one),))
    return {f"fleet{count}_vs_mosquitto": found["rate"], f"fleet{count}_server_cpu": cpu}


def _growth(bench: Bench) -> int:
    """How far an agent's memory grows for a model of 200 MB, in bytes, up to VERIFIED."""
    bench.platform.run(bench.platform.enroll(1))
    bench.size, before = 200_000_000, bench.size
    try:
        return bench.ours("one_device_200mb").rss_growth
    finally:
        bench.size = before
        bench.platform.end_devices()


def _rates(bench: Bench, name: str, other: Callable[[], float], options: Options) -> Figure:
    note(name)
    found = alternate(
        lambda: bench.rate(max(bench.ours(name).seconds)),
        lambda: bench.rate(other()),
        rounds=options.rounds,
        units={"rate": "MB/s"},
    )
    return found["rate"]


def _http(bench: Bench, *, tls: bool) -> float:
    with peers.http(bench.file(), bench.platform.home, tls=tls) as url:
        return peers.download(url, bench.folder / "out", bench.tls)


@contextmanager
def _delayed(target: int) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks._delay", str(port), str(target), str(RTT)]
    process = subprocess.Popen(command)
    try:
        until(lambda: peers.listens(port), "the delaying proxy", 20)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _details(costs: Mapping[str, list[Cost]]) -> dict[str, Any]:
    """Medians of what each delivery of ours cost; CPU in seconds a device."""
    found: dict[str, Any] = {}
    for name, many in costs.items():
        count = len(many[0].seconds)
        found[name] = {
            "devices": count,
            "seconds": statistics.median(max(c.seconds) for c in many),
            "cpu_server": statistics.median(c.cpu_server for c in many) / count,
            "cpu_broker": statistics.median(c.cpu_broker for c in many) / count,
            "cpu_device": statistics.median(c.cpu_devices for c in many) / count,
            "rss_growth": max(c.rss_growth for c in many),
        }
    return found


if __name__ == "__main__":
    main(measure, what=WHAT, rounds=5)
