"""Processes: dying with a parent, adopting orphans, and leaving none behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the thread that started this process ends (prctl(2))."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies (prctl(2))."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def reap(seconds: float) -> None:
    """Collect children until there are none, for so long at most."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.01)


def kill_all(find: Callable[[], Iterable[psutil.Process]], *, seconds: float) -> int:
    """SIGKILL what ``find`` finds until it finds nothing more; how many are left.

    It looks again after each round: a process may start another while it is killed.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = [process for process in find() if _alive(process)]
        if not found or time.monotonic() >= deadline:
            return len(found)
        for process in found:
            _kill(process)
        psutil.wait_procs(found, timeout=0.2)


def descendants() -> list[psutil.Process]:
    """All processes below this one."""
    return psutil.Process().children(recursive=True)


def marked(name: str, value: str) -> list[psutil.Process]:
    """Processes of this user with ``name=value`` in their environment, but not this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(name) == value:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone, or another user's
    return found


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):  # gone already
        process.kill()
