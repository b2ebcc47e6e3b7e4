"""One session in a process of its own: what its settings cost. Prints one line of JSON.

``python -m benchmarks._inference_session '{"net": …, "settings": {…}, "seconds": …, "rate": …}'``
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from benchmarks._inference_nets import NETS, packed
from edge_client.gauges import rss_mb
from edge_client.sessions import SessionSettings


def main(order: str) -> None:
    """Measure: back to back, then at the rate of a camera, when idle threads show their cost."""
    asked = json.loads(order)
    net = NETS[asked["net"]]()
    before = rss_mb() or 0.0
    _, model, x = packed(asked["net"], net, SessionSettings(**asked["settings"]))
    feed = model.model.check(x)
    run = model.model.run
    for _ in range(5):
        run(feed)
    times, end = [], time.perf_counter() + asked["seconds"]
    while time.perf_counter() < end:
        began = time.perf_counter()
        run(feed)
        times.append(time.perf_counter() - began)
    count = max(5, int(asked["seconds"] * asked["rate"]))
    spent, due = time.process_time(), time.perf_counter()
    for _ in range(count):
        due += 1 / asked["rate"]
        time.sleep(max(0.0, due - time.perf_counter()))
        run(feed)
    found = {
        "p50_ms": statistics.median(times) * 1e3,
        "cpu_ms_at_rate": (time.process_time() - spent) / count * 1e3,
        "growth_mb": (rss_mb() or 0.0) - before,
    }
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main(sys.argv[1])
