"""The control loop: every tick, each service closes the gap between desired and actual."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

Task = Callable[[], object]


class ControlLoop:
    """Runs its tasks in one thread.

    A task that fails is logged and run again at the next tick; tasks are
    level-triggered, so a tick that was missed costs only time.

    Args:
        tasks: by name.
        tick_seconds: the time between two rounds.
    """

    def __init__(self, tasks: Mapping[str, Task], tick_seconds: float) -> None:
        self._tasks = tasks
        self._tick = tick_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control-loop", daemon=True)
        self.failing: frozenset[str] = frozenset()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Begin no other round; waits for nothing."""
        self._stop.set()

    def stop(self) -> None:
        """Finish the round and end."""
        self.end()
        self._thread.join(timeout=5)

    def round(self) -> None:
        """Run every task once."""
        failed: set[str] = set()
        for name, task in self._tasks.items():
            try:
                task()
            except Exception:
                # Logged when it starts to fail, not four times a second.
                if name not in self.failing:
                    log.exception("%s failed; it is tried again at every tick", name)
                failed.add(name)
        for name in self.failing - failed:
            log.info("%s works again", name)
        self.failing = frozenset(failed)

    def _run(self) -> None:
        while not self._stop.wait(self._tick):
            self.round()
