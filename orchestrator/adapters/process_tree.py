"""The supervisor: starts children in order, restarts the dead, ends whole trees.

Level-triggered: each tick compares every child with what it should be. All children are
started by the thread that calls ``run``, since on Linux they get SIGTERM when it ends.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal

import psutil

from orchestrator.adapters import processes
from orchestrator.errors import Unavailable

WINDOW = 60.0
MAX_DEATHS = 5
GRACE = 3.5
"""Seconds from the first SIGTERM to SIGKILL, for all children together."""

_KILL_SECONDS = 1.0
_TICK = 0.1
_CHORES_EVERY = 2.0
_RELOAD_AFTER = 0.5
_FIRST_DELAY = 0.2
_MAX_DELAY = 5.0
_LOG_LIMIT = 16 * 1024 * 1024
_LAST_LINES = 12

EventKind = Literal["starting", "ready", "died", "restarted", "up", "stopped"]


@dataclass(frozen=True, slots=True)
class TreeEvent:
    """Something that happened to a child; ``up`` and the last ``stopped`` have none."""

    kind: EventKind
    child: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A process to keep running.

    Attributes:
        name: also that of its log.
        command: program and arguments.
        ready: answers whether it does its work, within a second; None is ready at once.
        ready_seconds: how long that may take after a start.
        reload_on: files whose change is told to it by SIGHUP.
        stop_seconds: its share of the time for stopping.
        many_files: it may open as many as the system allows; it must not wait by select() then.
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool] | None = None
    ready_seconds: float = 60.0
    reload_on: tuple[Path, ...] = ()
    stop_seconds: float = 1.0
    many_files: bool = False


class StopSignal:
    """Asks a supervisor to stop: from any thread, or from a signal handler."""

    def __init__(self) -> None:
        # SimpleQueue.put may interrupt a get of the same thread; Event.set may not.
        self._requests: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.requests = 0

    def request(self) -> None:
        """Ask to stop; asked twice, nothing is waited for any more."""
        self.requests += 1
        self._requests.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait that long at most; answers whether a stop was ever asked for."""
        if self.requests == 0:
            with contextlib.suppress(queue.Empty):
                self._requests.get(timeout=seconds)
        return self.requests > 0


def restart_delay(deaths: Sequence[float], now: float) -> float | None:
    """Seconds to wait before a dead child is started again; None gives up.

    Args:
        deaths: when it died, the last time included.
        now: the time, on the same clock.
    """
    recent = sum(1 for at in deaths if now - at < WINDOW)
    if recent >= MAX_DEATHS:
        return None
    return float(min(_MAX_DELAY, _FIRST_DELAY * 2 ** max(0, recent - 1)))


@dataclass(slots=True)
class _Kept:
    """A child and what became of it."""

    child: Child
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    not_before: float = 0.0
    ready: bool = False
    was_ready: bool = False
    deaths: list[float] = field(default_factory=list)
    seen: dict[Path, int] = field(default_factory=dict)


class Supervisor:
    """Keeps children running until it is told to stop.

    Args:
        children: in their order of start; each waits until those before it were ready once.
        logs: the folder of their output.
        env: their environment.
        mark: what their descendants are found by.
        stop: asks it to stop.
        on_event: is told what happens, from the thread that runs it.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        logs: Path,
        env: Mapping[str, str],
        mark: str,
        stop: StopSignal,
        on_event: Callable[[TreeEvent], None] = lambda _event: None,
    ) -> None:
        self._kept = [_Kept(c, logs / f"{c.name}.log") for c in children]
        self._env = dict(env)
        self._mark = mark
        self._stop = stop
        self._tell = on_event
        self._tree = processes.Tree(mark)
        self._up = False
        self._chores_at = 0.0

    def run(self) -> None:
        """Run until a stop is asked for; every descendant has ended when this returns.

        In the main thread SIGINT, SIGTERM and SIGHUP ask for the stop.

        Raises:
            Unavailable: a child died too often, or never got ready.
        """
        processes.become_subreaper()
        with _signals(self._stop):
            try:
                while not self._stop.wait(_TICK):
                    self._tick(time.monotonic())
            finally:
                self._end()

    def _tick(self, now: float) -> None:
        for kept in self._kept:
            if kept.process is None:
                if now >= kept.not_before:
                    self._start(kept, now)
            elif (code := kept.process.poll()) is not None:
                self._died(kept, now, _how(code))
            else:
                self._reload(kept, now)
                if not kept.ready:
                    self._probe(kept, now)
            if not kept.was_ready:
                break
        if not self._up and all(k.was_ready for k in self._kept):
            self._up = True
            self._tell(TreeEvent("up"))
        if now >= self._chores_at:
            self._chores_at = now + _CHORES_EVERY
            self._chores()

    def _start(self, kept: _Kept, now: float) -> None:
        child = kept.child
        processes.rotate(kept.log, _LOG_LIMIT)
        self._tell(TreeEvent("restarted" if kept.deaths else "starting", child.name))
        kept.seen = _stamps(child.reload_on)
        files = processes.allowing_files() if child.many_files else contextlib.nullcontext()
        with files:
            kept.process = processes.spawn(child.command, kept.log, self._env, self._mark)
        kept.started, kept.ready = now, False

    def _died(self, kept: _Kept, now: float, how: str) -> None:
        kept.process = None
        kept.deaths.append(now)
        name = kept.child.name
        self._tell(TreeEvent("died", name, how))
        delay = restart_delay(kept.deaths, now)
        if delay is None:
            msg = f"the {name} died {MAX_DEATHS} times within {WINDOW:.0f} s, the last time {how}"
            raise _failed(msg, kept.log)
        kept.deaths = [at for at in kept.deaths if now - at < WINDOW]
        kept.not_before = now + delay

    def _probe(self, kept: _Kept, now: float) -> None:
        if kept.child.ready is None or kept.child.ready():
            kept.ready = kept.was_ready = True
            self._tell(TreeEvent("ready", kept.child.name))
        elif now - kept.started > kept.child.ready_seconds:
            limit = kept.child.ready_seconds
            msg = f"the {kept.child.name} was not ready {limit:.0f} s after its start"
            raise _failed(msg, kept.log)

    def _reload(self, kept: _Kept, now: float) -> None:
        stamps = _stamps(kept.child.reload_on)
        # A child that has just begun may not handle the signal yet, and would die of it.
        settled = kept.ready and now - kept.started > _RELOAD_AFTER
        if kept.process is not None and settled and stamps != kept.seen:
            kept.seen = stamps
            kept.process.send_signal(signal.SIGHUP)

    def _chores(self) -> None:
        own = self._own()
        self._tree.look(own)
        self._tree.reap(own)
        for kept in self._kept:
            processes.rotate(kept.log, _LOG_LIMIT)

    def _own(self) -> set[int]:
        return {k.process.pid for k in self._kept if k.process is not None}

    def _end(self) -> None:
        """End every child, last first, and whatever they have started."""
        start, share = time.monotonic(), 0.0
        own = self._own()
        self._tree.look(own)
        for kept in reversed(self._kept):
            if kept.process is not None:
                share += kept.child.stop_seconds
                self._end_one(kept, kept.process, start + min(GRACE, share))
        self._tree.look_everywhere()
        while self._tree.alive() and time.monotonic() < start + GRACE and not self._hurried():
            time.sleep(_TICK / 2)
        left = self._tree.kill(_KILL_SECONDS)
        for kept in self._kept:
            if kept.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    kept.process.wait(_KILL_SECONDS)
        self._tree.reap(own)
        stuck = ", ".join(str(p.pid) for p in left)
        self._tell(TreeEvent("stopped", detail=f"could not end: {stuck}" if stuck else None))

    def _end_one(self, kept: _Kept, process: subprocess.Popen[bytes], deadline: float) -> None:
        below: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            below = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        while process.poll() is None and time.monotonic() < deadline and not self._hurried():
            time.sleep(0.02)
        # What it did not end itself is asked now, and killed when the time is over.
        processes.send((p for p in below if processes.alive(p)), signal.SIGTERM)
        if process.poll() is not None:
            self._tell(TreeEvent("stopped", kept.child.name))

    def _hurried(self) -> bool:
        return self._stop.requests > 1


@contextlib.contextmanager
def _signals(stop: StopSignal) -> Iterator[None]:
    """Turn the signals that end a program into a stop, where this thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.request()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, handle)) for number in numbers]
    try:
        yield
    finally:
        for number, old in before:
            signal.signal(number, old)


def _failed(what: str, log: Path) -> Unavailable:
    lines = processes.last_lines(log, _LAST_LINES)
    text = "".join(f"\n  {line}" for line in lines)
    return Unavailable(f"{what}{':' if text else ''}{text}", hint=f"its whole output is in {log}")


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    return f"by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"by {-code}"


def _stamps(paths: Sequence[Path]) -> dict[Path, int]:
    found: dict[Path, int] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            found[path] = path.stat().st_mtime_ns
    return found
