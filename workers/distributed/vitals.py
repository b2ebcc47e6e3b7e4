"""What a worker's process takes: CPU, memory and GPU, sampled by a thread of its own."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from workers.distributed.board import Vitals

PERIOD = 2.0
MIB = 1024**2


class Sampler:
    """Reads this process now and then, loading processes below it included.

    Args:
        tell: takes each reading, on the sampler's thread.
        children: whether it has processes that load data.
        device: the CUDA device it computes on, or None.
    """

    def __init__(
        self, tell: Callable[[Vitals], None], *, children: bool = False, device: Any = None
    ) -> None:
        self._tell = tell
        self._children = children
        self._device = device
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._before: tuple[float, float] | None = None
        self._thread = threading.Thread(target=self._run, name="vitals", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, with a last reading."""
        self._stop.set()
        self._thread.join()
        self._tell(self.read())

    def _run(self) -> None:
        self.read()
        while not self._stop.wait(PERIOD):
            with contextlib.suppress(psutil.Error):
                self._tell(self.read())

    def read(self) -> Vitals:
        """One reading; the CPU share is that since the last one."""
        now, seconds, rss = time.monotonic(), 0.0, 0
        processes = [self._process]
        if self._children:
            processes += self._process.children(recursive=True)
        for process in processes:
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                times = process.cpu_times()
                seconds += times.user + times.system
                rss += process.memory_info().rss
        before, self._before = self._before, (now, seconds)
        share = 0.0
        if before is not None and now > before[0]:
            share = max(0.0, 100 * (seconds - before[1]) / (now - before[0]))
        percent, memory = _gpu(self._device)
        return Vitals(share, rss / MIB, seconds, percent, memory)


def _gpu(device: Any) -> tuple[float | None, float | None]:
    """Utilization in percent and memory in MiB that this process holds; None if not known."""
    torch = sys.modules.get("torch")
    if device is None or torch is None or not torch.cuda.is_available():
        return None, None
    memory = torch.cuda.memory_reserved(device) / MIB
    try:
        return float(torch.cuda.utilization(device)), memory
    except Exception:  # noqa: BLE001 - it needs pynvml, which may be missing or refuse
        return None, memory
