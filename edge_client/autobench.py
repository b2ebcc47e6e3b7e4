"""Measuring a variant once after it became active, by the agent itself.

Only while no update is under way: a model on probation is judged by how it serves, which
nothing may disturb. It is a process of its own with the lowest priority, which rests half of
the time and is ended when an update begins; then it is measured after that.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

from edge_client.settings import Home
from edge_client.slots import Slot
from schemas.ids import Name, Sha256

SETTLE_SECONDS = 10.0
"""A model serves in peace for so long before it is measured."""

MAX_SECONDS = 180.0
"""After which a measurement is ended; the variant is not tried again before the next start."""

log = logging.getLogger(__name__)


class Process(Protocol):
    """What a measurement runs in; ``subprocess.Popen`` is one."""

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""

    def kill(self) -> None:
        """End it."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""


def start_bench(home: Home, model: Name) -> Process:
    """Measure the active variant of a model in a process of its own."""
    command = ["-m", "edge_client", "bench", model, "--quietly", "--home", str(home.root)]
    return subprocess.Popen(
        [sys.executable, "-P", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


class Autobench:
    """One device's own measurements. Used from the thread that decides."""

    def __init__(
        self,
        home: Home,
        *,
        known: Callable[[Sha256], bool],
        clock: Callable[[], float],
        start: Callable[[Home, Name], Process] = start_bench,
    ) -> None:
        """Put together.

        Args:
            home: the device's.
            known: whether a file was measured here already.
            clock: seconds that only grow.
            start: begins a measurement.
        """
        self._home, self._known, self._clock, self._start = home, known, clock, start
        self._process: Process | None = None
        self._began = 0.0
        self._slot: Slot | None = None  # which is measured
        self._slots: tuple[Slot, ...] = ()
        self._since = 0.0
        self._done: set[Sha256] = set()

    def look(self, slots: tuple[Slot, ...], *, in_peace: bool) -> None:
        """Begin, or end, what is called for.

        Args:
            slots: what serves.
            in_peace: whether no update is under way.
        """
        now = self._clock()
        if slots != self._slots or not in_peace:
            self.stop()
            self._slots, self._since = slots, now
            return
        if self._process is not None:
            self._watch(now)
        elif now - self._since >= SETTLE_SECONDS:
            for slot in slots:
                if self._process is None:
                    self._begin(slot, now)

    def stop(self) -> None:
        """End a measurement that is under way; it counts as not begun."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _begin(self, slot: Slot, now: float) -> None:
        if slot.sha256 in self._done:
            return
        if self._known(slot.sha256):
            self._done.add(slot.sha256)
            return
        try:
            self._process, self._began = self._start(self._home, slot.model), now
            self._slot = slot
        except OSError as error:
            self._done.add(slot.sha256)
            log.warning("the active model cannot be measured: %s", error)

    def _watch(self, now: float) -> None:
        process, slot = self._process, self._slot
        if process is None or slot is None:
            return
        code = process.poll()
        if code is None and now - self._began < MAX_SECONDS:
            return
        self.stop()
        self._done.add(slot.sha256)
        if code == 0:
            log.info("measured %s v%s (%s)", slot.model, slot.version, slot.variant)
        else:
            how = f"it took over {MAX_SECONDS:g} s" if code is None else f"status {code}"
            log.warning("the active model could not be measured: %s", how)
