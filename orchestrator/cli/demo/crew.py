"""The processes of a demo: started so that they can be ended, all of them, in time."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from orchestrator.adapters import processes
from orchestrator.errors import Unavailable
from orchestrator.home import Home
from orchestrator.supervisor import mark_of

GRACE = 4.2
"""Seconds from asking to killing; the platform's own end takes up to 3.5."""

PLATFORM = "platform"
_LINES = 8
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Crew:
    """Starts programs, waits for them, ends them.

    Args:
        logs: the folder of their output.
        env: their environment.
        home: the platform's, so that what its own end leaves is found too.
    """

    def __init__(self, logs: Path, env: Mapping[str, str], home: Path) -> None:
        self._logs = logs
        self._env = dict(env)
        self._mark = secrets.token_hex(16)
        self._home_mark = mark_of(Home(home))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._ended = False

    def start(self, name: str, command: Sequence[str], **env: str) -> None:
        """Start a program; the calling thread must live as long as it.

        Args:
            name: of its log, and for errors.
            command: program and arguments.
            env: added to its environment.

        Raises:
            Unavailable: the demo is ending.
        """
        with self._lock:
            if self._ended:
                detail = "the demo is ending"
                raise Unavailable(detail)
            process = processes.spawn(command, self.log(name), {**self._env, **env}, self._mark)
            self._running[name] = process

    @property
    def has_started(self) -> bool:
        """Whether there was ever a program."""
        return bool(self._running)

    def finish(self, name: str, seconds: float) -> None:
        """Wait for a program that must end well.

        Raises:
            Unavailable: it failed, or took too long; with its last lines.
        """
        process = self._running[name]
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.failure(name, f"did not end within {seconds:g} s") from None
        if code != 0:
            raise self.failure(name, f"ended with exit code {code}")

    def check(self) -> None:
        """See that what must go on is still there.

        Raises:
            Unavailable: a program ended that should not have.
        """
        for name, process in self._running.items():
            if name in self._lasting and process.poll() is not None:
                raise self.failure(name, f"ended with exit code {process.returncode}")

    @property
    def _lasting(self) -> frozenset[str]:
        return frozenset(n for n in self._running if n == PLATFORM or n.startswith("device-"))

    def failure(self, name: str, what: str) -> Unavailable:
        """The error for a program that went wrong."""
        lines = processes.last_lines(self.log(name), _LINES)
        text = "".join(f"\n{line}" for line in lines)
        return Unavailable(f"{name} {what}{text}", hint=f"its output is in {self.log(name)}")

    def log(self, name: str) -> Path:
        """Where a program's output goes."""
        return self._logs / f"{name}.log"

    def end(self) -> list[str]:
        """End everything; answers what could not be ended."""
        with self._lock:
            self._ended = True
            running = [p for p in self._running.values() if p.poll() is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + GRACE
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        stuck = []
        for mark in (self._mark, self._home_mark):
            stuck += processes.Tree(mark).kill(0.5)
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        return [str(p.pid) for p in stuck]


def program(name: str) -> str:
    """The path of one of our programs: beside this interpreter, else on PATH.

    Raises:
        Unavailable: it is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        detail = f"the program {name} is neither beside {sys.executable} nor on PATH"
        raise Unavailable(detail, hint="install argosy again, in this environment")
    return found


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Every signal that ends a program raises KeyboardInterrupt here."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = [(number, signal.signal(number, handle)) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, old in before:
            signal.signal(number, old)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """No signal breaks off what is done here; it takes seconds at most."""
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, old in before:
            signal.signal(number, old)
