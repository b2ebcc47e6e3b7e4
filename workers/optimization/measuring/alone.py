"""Loading and running one model in a process of its own, to see what that takes.

``python -m workers.optimization.measuring.alone`` reads what to do from standard input and
prints one line of JSON. The peak is VmHWM of Linux's procfs, which unlike ``ru_maxrss`` does not
begin with the parent's; it is set back before the model is loaded, so that what importing took
does not hide what the model adds. Little is imported, as every start costs.
"""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from workers.optimization.measuring.nodes import nodes_of
from workers.optimization.session import open_session

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def _memory(key: str) -> float | None:
    """A figure of this process, in MiB: VmRSS now, or VmHWM at its highest."""
    with suppress(OSError):
        found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        return int(found[1]) / 1024 if found else None
    return None


def main() -> int:
    """Do what standard input says."""
    order = json.loads(sys.stdin.read())
    feeds = []
    for name in order["feeds"]:
        with np.load(name, allow_pickle=False) as arrays:
            each = enumerate(order["names"])
            feeds.append({key: arrays[f"arr_{i}"] for i, key in each})
    with suppress(OSError):
        _CLEAR.write_text("5")  # VmHWM begins anew at what is resident now
    idle = _memory("VmRSS")
    began = time.perf_counter()
    session = open_session(Path(order["model"]))
    loaded = time.perf_counter()
    first_ms, peaks = 0.0, []
    for i, feed in enumerate(feeds):
        session.run(None, feed)
        if i == 0:
            first_ms = (time.perf_counter() - loaded) * 1e3
        session.run(None, feed)  # some kernels grow at the second run
        peaks.append(_memory("VmHWM"))
    growth = [None if p is None or idle is None else max(0.0, p - idle) for p in peaks]
    nodes = nodes_of(Path(order["model"]), feeds[0]) if order["nodes"] and feeds else {}
    answer = {
        "load_ms": (loaded - began) * 1e3,
        "first_ms": first_ms,
        "rss_mb": peaks,
        "growth_mb": growth,
        "nodes": nodes,
    }
    print(json.dumps(answer))  # noqa: T201 - its answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
