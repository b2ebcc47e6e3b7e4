"""The control loop: every tick, each service closes the gap between desired and actual."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.clock import utc_now

log = logging.getLogger(__name__)

Task = Callable[[], object]

_BRISK = 0.1
"""Of a tick, what is rested while there is more to do: others want to write, too."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that fails. since: its first round of them. why: the kind of the last error.

    No more is told of it, as everybody may read it: the log has the whole.
    """

    since: datetime
    why: str


class ControlLoop:
    """Runs its tasks in one thread.

    A task that fails is logged and run again at the next tick; tasks are
    level-triggered, so a tick that was missed costs only time.

    Args:
        tasks: by name.
        tick_seconds: the time between two rounds.
        busy: whether a task has left work that it could do at once: then the rest is short.
        seldom: the least seconds between two runs of a task that need not run at every tick,
            by its name; one that fails is tried again at every tick.
        monotonic: seconds, by which these are kept.
        clock: the time, in UTC, from which a task is said to fail.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        tick_seconds: float,
        busy: Callable[[], bool] = lambda: False,
        seldom: Mapping[str, float] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._tasks = tasks
        self._tick = tick_seconds
        self._busy = busy
        self._seldom = dict(seldom or {})
        self._monotonic = monotonic
        self._clock = clock
        self._next: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control-loop", daemon=True)
        self.failing: Mapping[str, Failure] = {}

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
        """Run every task once that is due."""
        failed: dict[str, Failure] = {}
        for name, task in self._tasks.items():
            if not self._is_due(name):
                continue
            try:
                task()
            except Exception as error:
                # Logged when it starts to fail, not four times a second.
                if name not in self.failing:
                    log.exception("%s failed; it is tried again at every tick", name)
                before = self.failing.get(name)
                since = before.since if before is not None else self._clock()
                failed[name] = Failure(since, type(error).__name__)
        for name in self.failing.keys() - failed.keys():
            log.info("%s works again", name)
        self.failing = failed

    def health(self) -> str:
        """``ok``, or which tasks fail, since when and by which kind of error."""
        told = [
            f"{name} since {one.since:%Y-%m-%d %H:%M:%S} UTC ({one.why})"
            for name, one in self.failing.items()
        ]
        return f"failing: {', '.join(told)}" if told else "ok"

    def _is_due(self, name: str) -> bool:
        if name not in self._seldom:
            return True
        now = self._monotonic()
        if now < self._next.get(name, now) and name not in self.failing:
            return False
        self._next[name] = now + self._seldom[name]
        return True

    def _run(self) -> None:
        while not self._stop.wait(self._rest()):
            self.round()

    def _rest(self) -> float:
        # Not while something fails: it may have left its work as it was.
        return self._tick * (_BRISK if self._busy() and not self.failing else 1.0)
