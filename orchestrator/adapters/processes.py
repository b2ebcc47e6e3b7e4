"""Processes: starting them so that they end with their starter, and ending whole trees.

A child runs in a session of its own, so that Ctrl-C reaches the supervisor alone, and
carries a mark in its environment which all its descendants inherit. On Linux it gets
SIGTERM when its starter dies (``PR_SET_PDEATHSIG``) and orphans below it come to the
supervisor (``PR_SET_CHILD_SUBREAPER``). The mark finds what has left the tree by other
ways: daemons, and what a killed supervisor left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

MARK = "ARGOSY_TREE"

_FILES = 2**17
"""More than any fleet of one broker needs; some programs walk through all they may open."""

_PR_SET_CHILD_SUBREAPER = 36
# Runs in the child before the program: set the signal that the death of the starting
# thread sends, see that the starter did not die before that, become the program. A child
# of its own interpreter is slower than a preexec_fn (20 ms) and safe beside threads.
_SHIM = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(143)
os.execvp(sys.argv[2], sys.argv[2:])
"""
_KILL_SECONDS = 2.0
_LINUX = sys.platform == "linux"


def become_subreaper() -> bool:
    """Have orphaned descendants handed to this process; False where that is not possible."""
    if not _LINUX:
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


@contextlib.contextmanager
def allowing_files() -> Iterator[None]:
    """Let what is started within open as many files as the system allows it.

    The broker keeps one for each device and does not ask for them itself: of the usual 1024
    it would take no more devices than that, without a word. What watches its sockets by select(),
    as the MQTT clients of the other programs do, fails on a file beyond 1024, so they keep theirs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # a system that allows fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def spawn(
    command: Sequence[str], log: Path, env: Mapping[str, str], mark: str
) -> subprocess.Popen[bytes]:
    """Start a child whose output is appended to a log.

    On Linux it gets SIGTERM when the calling thread ends.

    Args:
        command: program and arguments.
        log: the file; its folder exists.
        env: the whole environment.
        mark: what its descendants are found by; without control characters.
    """
    argv = list(command)
    if _LINUX:
        argv = [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid()), *argv]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env={**env, MARK: mark},
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


class Tree:
    """The processes of one platform, remembered once seen.

    A process is known by its id and start time, so a reused id is never taken for one.

    Args:
        mark: what they carry in their environment.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._known: dict[int, psutil.Process] = {}

    def look(self, roots: Iterable[int] = ()) -> None:
        """Remember ``roots`` and every process below them and below those known."""
        below: dict[int, list[psutil.Process]] = {}
        current = {p.pid: p for p in psutil.process_iter(["ppid"])}
        for process in current.values():
            below.setdefault(process.info["ppid"], []).append(process)
        self._known = {pid: p for pid, p in self._known.items() if current.get(pid) == p}
        waiting = [current[pid] for pid in {*roots, *self._known} if pid in current]
        while waiting:
            process = waiting.pop()
            self._known[process.pid] = process
            waiting += [p for p in below.get(process.pid, ()) if p.pid not in self._known]

    def look_everywhere(self) -> None:
        """Remember every process with the mark, this one and those above it left out."""
        own = {p.pid for p in (psutil.Process(), *psutil.Process().parents())}
        found = (p for p in psutil.process_iter() if p.pid not in own and self._is_marked(p))
        self._known |= {p.pid: p for p in found}

    def alive(self) -> list[psutil.Process]:
        """Those that still run, and what is below them."""
        self.look()
        return [p for p in self._known.values() if alive(p)]

    def reap(self, own: Collection[int]) -> None:
        """Reap dead orphans that came to this process as their subreaper.

        Only those that were known, or that are in a child's session: the process may have
        children of other origin, whose exit status someone waits for.

        Args:
            own: ids of children that the caller itself waits for.
        """
        for child in psutil.Process().children():
            if child.pid in own:
                continue
            if self._is_marked(child):
                self._known[child.pid] = child
            ours = self._known.get(child.pid) == child or _session(child.pid) in own
            if ours and not alive(child):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(child.pid, os.WNOHANG)

    def kill(self, seconds: float) -> list[psutil.Process]:
        """SIGKILL all, again until nothing new appears; what withstood is answered."""
        deadline = time.monotonic() + seconds
        while True:
            self.look_everywhere()
            left = self.alive()
            if not left or time.monotonic() > deadline:
                return left
            send(left, signal.SIGKILL)
            psutil.wait_procs(left, timeout=0.1)

    def _is_marked(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self._mark
        except (psutil.Error, OSError):
            return False


def alive(process: psutil.Process) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def send(found: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def end_marked(mark: str, grace: float) -> int:
    """End what an earlier run left behind: SIGTERM, then SIGKILL; answers how many there were."""
    tree = Tree(mark)
    tree.look_everywhere()
    left = tree.alive()
    if left:
        send(left, signal.SIGTERM)
        psutil.wait_procs(left, timeout=grace)
        tree.kill(_KILL_SECONDS)
    return len(left)


def holder_of(port: int) -> str | None:
    """Who listens on a TCP port, as ``process 12 (name)``; None when that cannot be told."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return None
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or not connection.laddr:
            continue
        if connection.laddr.port == port and connection.pid is not None:
            with contextlib.suppress(psutil.Error):
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return None


def rotate(log: Path, limit: int, keep: int = 3) -> None:
    """Bound a log that a running child appends to: copy it to ``.1`` when it is too large.

    The file is copied and emptied, not renamed, because the child holds it open. Lines
    written between the two are lost.

    Args:
        log: the file.
        limit: bytes above which it is rotated.
        keep: how many old ones are kept.
    """
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size <= limit:
            return
        for number in range(keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                _numbered(log, number).replace(_numbered(log, number + 1))
        shutil.copyfile(log, _numbered(log, 1))
        os.truncate(log, 0)


def last_lines(log: Path, count: int, limit: int = 16 * 1024) -> list[str]:
    """The last lines of a log, at most ``count`` and at most ``limit`` bytes."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
            text = file.read(limit).decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


def _numbered(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
