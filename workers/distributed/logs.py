"""What a process prints, line by line: on its way to the API, and still where it went."""

from __future__ import annotations

import io
import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TextIO

from workers.blame import Origin, origin_of

Level = Literal["debug", "info", "warning", "error"]
Sink = Callable[[Level, str], None]

MAX_LINE = 2000
MAX_OPEN = 64 * 1024
"""Characters of a line without an end that are kept."""

RATE, BURST = 50.0, 500.0
"""Lines a second in the long run, and at once."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """A token bucket over lines. left: lines that may go now; lost: that did not."""

    left: float = BURST
    at: float = 0.0
    lost: int = 0


def spend(allowance: Allowance, now: float) -> tuple[Allowance, bool]:
    """Whether a line may go at this moment (seconds, monotonic)."""
    left = min(BURST, allowance.left + RATE * max(0.0, now - allowance.at))
    if left < 1:
        return replace(allowance, left=left, at=now, lost=allowance.lost + 1), False
    return replace(allowance, left=left - 1, at=now), True


class Outlet:
    """Bounds what goes to a sink: long lines are cut, too many are counted instead."""

    def __init__(self, sink: Sink, clock: Callable[[], float] = time.monotonic) -> None:
        self._sink = sink
        self._clock = clock
        self._lock = threading.Lock()
        self._allowance = Allowance(at=clock())

    def say(self, level: Level, line: str) -> None:
        """Pass a line on."""
        with self._lock:
            lost = self._allowance.lost
            self._allowance, goes = spend(self._allowance, self._clock())
            if not goes:
                return
            if lost:
                self._allowance = replace(self._allowance, lost=0)
        if lost:
            self._sink("warning", f"{lost} lines came too fast and were left out")
        self._sink(level, line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]} …")


class Lines:
    """Cuts a stream of text into lines; a progress bar shows as its last state."""

    def __init__(self) -> None:
        self._open = ""

    def feed(self, text: str) -> list[str]:
        """The lines that are whole now, without the empty ones."""
        *whole, self._open = (self._open + text).split("\n")
        # What a carriage return overwrote was never meant to stay.
        self._open = _last_state(self._open)[-MAX_OPEN:]
        return [line for one in whole if (line := _last_state(one.rstrip("\r")).rstrip())]

    def rest(self) -> str:
        """What was begun and not ended."""
        found, self._open = self._open, ""
        return found.strip()


def _last_state(line: str) -> str:
    # A bar may end with the return that will overwrite it.
    body = line.rstrip("\r")
    return body.rpartition("\r")[2] + line[len(body) :]


class Tee(io.TextIOBase):
    """A stream that writes to the original and hands on each line."""

    def __init__(self, original: TextIO, say: Callable[[str], None]) -> None:
        super().__init__()
        self.original = original
        self._say = say
        self._lines = Lines()
        self._lock = threading.RLock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the original."""
        return self.original.encoding

    @property
    def buffer(self) -> Any:
        """Of the original: bytes written there do not pass here."""
        return self.original.buffer

    def reconfigure(self, **options: Any) -> None:
        """Of the original, which decides how text is written."""
        self.original.reconfigure(**options)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Not: what the process says last still goes here."""
        self.flush()

    def writable(self) -> bool:
        """Yes."""
        return True

    def isatty(self) -> bool:
        """No: nobody types here."""
        return False

    def fileno(self) -> int:
        """Of the original: what a child process writes goes there alone."""
        return self.original.fileno()

    def write(self, text: str) -> int:
        """Write; never fails for the sake of those who listen."""
        self.original.write(text)
        with self._lock:
            for line in self._lines.feed(text):
                self._say(line)
        return len(text)

    def flush(self) -> None:
        """Of the original."""
        self.original.flush()

    def finish(self) -> None:
        """Hand on a line that was not ended."""
        with self._lock:
            if rest := self._lines.rest():
                self._say(rest)


class Handler(logging.StreamHandler[TextIO]):
    """Writes records to a stream and hands them on with their level."""

    def __init__(self, stream: TextIO, outlet: Outlet) -> None:
        super().__init__(stream)
        self._outlet = outlet
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        self.addFilter(worth_telling)

    def emit(self, record: logging.LogRecord) -> None:
        """Write and hand on."""
        super().emit(record)
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text = f"{text}: {record.exc_info[1]!r}"
            for line in text.splitlines():
                if line.strip():
                    self._outlet.say(level_of(record.levelno), line.rstrip())
        except Exception:  # noqa: BLE001 - what logging does with a record it cannot format
            self.handleError(record)


def worth_telling(record: logging.LogRecord) -> bool:
    """Libraries speak from warnings on; the job and its task from info on."""
    # By file, not by name: some loggers are named after nothing one could list.
    return record.levelno >= logging.WARNING or origin_of(record.pathname) is not Origin.LIBRARY


def level_of(number: int) -> Level:
    """The wire's name of a logging level."""
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"


_OF_RAY = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+\t(DEBUG|INFO|WARNING|ERROR|CRITICAL) ")


def printed(line: str) -> Level | None:
    """The level of a printed line; None for one that is not worth telling.

    Ray's own loggers write to the stream, each with a handler that nobody else can filter.
    """
    found = _OF_RAY.match(line)
    if found is None:
        return "info"
    level = level_of(logging.getLevelNamesMapping()[found[1]])
    return level if level in {"warning", "error"} else None


class Capture:
    """While entered: prints and log records of this process reach the sink as well.

    The user's own ``logging.basicConfig`` then changes nothing, as where a framework has
    configured logging before.
    """

    def __init__(self, sink: Sink) -> None:
        self._outlet = Outlet(sink)

    def start(self) -> None:
        """Put the tees and the handler in place."""
        self._out = Tee(sys.stdout, self._printed)
        self._err = Tee(sys.stderr, self._printed)
        self._handler = Handler(sys.stderr, self._outlet)
        root = logging.getLogger()
        self._before = (list(root.handlers), root.level)
        root.handlers[:] = [self._handler]
        root.setLevel(logging.INFO)
        sys.stdout, sys.stderr = self._out, self._err

    def _printed(self, line: str) -> None:
        level = printed(line)
        if level is not None:
            self._outlet.say(level, line)

    def stop(self) -> None:
        """Put back what was there."""
        self._out.finish()
        self._err.finish()
        sys.stdout, sys.stderr = self._out.original, self._err.original
        root = logging.getLogger()
        root.handlers[:], level = self._before[0], self._before[1]
        root.setLevel(level)
