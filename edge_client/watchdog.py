"""Ends an agent in which something hangs, so that its supervisor starts it anew.

The thread that decides beats; loads and inferences say when they begin and end. A thread of its
own looks at both, and tells systemd that all is well only while it is. What hangs without
letting any thread of Python run is ended by a timer of the interpreter, and by systemd.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from edge_client.busy import Busy, Doing
from edge_client.hang import Hang, write_hang
from edge_client.notify import WATCHDOG, notify
from edge_client.settings import Home
from schemas.errors import Exit

LOOKS = 8
"""Looks within the time after which something counts as hung."""

MAX_LOOK_SECONDS = 1.0
LOOP = "the agent's loop"
LONG_SECONDS = 300.0
"""For what may take long on a slow device; the trial load before it took at most 120 s."""

_LONG = frozenset({"a load", "the golden run"})
LAST_SECONDS = 2.0
"""For the note: a disk that hangs must not keep the agent from ending."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Patience:
    """How long each thing has been seen to make no progress.

    Counted in looks, not by a clock: of the time during which the whole process was stopped (a
    machine that sleeps, a debugger) only one look counts.
    """

    limit: float
    every: float
    long: float = LONG_SECONDS
    _seen: dict[int, float] = field(default_factory=dict)
    _beats: int = -1
    _still: float = 0.0

    def look(self, beats: int, doing: Iterable[Doing]) -> Hang | None:
        """Look again, ``every`` seconds after the last time.

        Args:
            beats: of the thread that decides; a counter.
            doing: loads and inferences that are under way.

        Returns:
            What hangs; None when nothing does.
        """
        now = list(doing)
        self._seen = {one.number: self._seen.get(one.number, -self.every) + self.every
                      for one in now}  # fmt: skip
        self._still = 0.0 if beats != self._beats else self._still + self.every
        self._beats = beats
        for one in now:
            limit = max(self.limit, self.long) if one.what in _LONG else self.limit
            if self._seen[one.number] >= limit:
                return Hang(what=one.what, sha256=one.sha256, seconds=self._seen[one.number])
        # A load is done by the thread that decides; it has its own limit, from its own beginning.
        if self._still >= self.limit and not any(one.what == "a load" for one in now):
            return Hang(what=LOOP, seconds=self._still)
        return None


class Watchdog:
    """Of one agent. ``beat`` is called by the thread that decides."""

    def __init__(
        self,
        home: Home,
        busy: Busy,
        *,
        limit: float,
        end: Callable[[int], NoReturn] = os._exit,
    ) -> None:
        """Prepare.

        Args:
            home: where the note about a hang goes.
            busy: loads and inferences that are under way.
            limit: seconds without progress.
            end: ends the process at once, with an exit code.
        """
        self._home, self._busy, self._end = home, busy, end
        self._every = min(MAX_LOOK_SECONDS, limit / LOOKS)
        self._patience = Patience(limit, self._every)
        self._limit = limit
        self._beats = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def beat(self) -> None:
        """The loop goes round."""
        self._beats += 1

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """The agent ends by itself; that must not take longer than the limit either."""
        self._stop.set()
        faulthandler.dump_traceback_later(self._limit, exit=True)

    def stopped(self) -> None:
        """It has come to its end."""
        faulthandler.cancel_dump_traceback_later()

    def look(self) -> None:
        """Look once."""
        hang = self._patience.look(self._beats, self._busy.now())
        if hang is not None:
            self._bite(hang)
            return
        notify(WATCHDOG)
        # In case no thread of Python can run any more: twice as late as this one would be.
        faulthandler.dump_traceback_later(2 * self._limit + self._every, exit=True)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self.look()
            except Exception:  # whoever watches must not be the first to fall
                log.exception("the watchdog could not look")

    def _bite(self, hang: Hang) -> None:
        writer = threading.Thread(target=self._note, args=(hang,), name="hang note", daemon=True)
        writer.start()
        log.critical("%s %s; the agent ends, to be started anew", hang.what, hang.why)
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        writer.join(LAST_SECONDS)
        self._end(Exit.HUNG)

    def _note(self, hang: Hang) -> None:
        try:
            write_hang(self._home, hang)
        except OSError as error:
            log.warning("what hung could not be noted: %s", error)
