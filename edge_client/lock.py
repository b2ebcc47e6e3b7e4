"""One agent per home, and one bench."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edge_client.errors import AgentRunningError, BenchRunningError
from edge_client.settings import Home

LOOKS, LOOK_SECONDS = 3, 0.02


@contextmanager
def agent_lock(home: Home) -> Iterator[None]:
    """Hold the home while an agent, or an enrollment, works in it.

    The kernel lets go of the lock when the process ends, however it ends.

    Raises:
        AgentRunningError: another process holds it.
    """
    home.create()
    fd = _open(home)
    try:
        try:
            _take(fd)
        except BlockingIOError as error:
            holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            msg = f"an agent runs in {home.root} already (process {holder})"
            raise AgentRunningError(msg, hint="stop it first, or use another --home") from error
        with contextlib.suppress(OSError):  # on a full disk; it only helps to read an error
            os.ftruncate(fd, 0)
            os.write(fd, str(os.getpid()).encode())
        yield
    finally:
        os.close(fd)


def _take(fd: int) -> None:
    """Take the lock; whoever only looks whether it is held has it for a moment (``is_locked``)."""
    for _ in range(LOOKS):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(LOOK_SECONDS)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _open(home: Home) -> int:
    """Open the lock; a disk that became read-only must not keep a model from serving."""
    try:
        return os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        if not home.lock.exists():
            raise
        return os.open(home.lock, os.O_RDONLY)


@contextmanager
def bench_lock(home: Home) -> Iterator[None]:
    """Hold the right to measure in a home: two at once would measure each other.

    It is not the agent's lock: measuring reads, and the agent goes on serving.

    Raises:
        BenchRunningError: another process measures.
    """
    fd = os.open(home.bench_lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"the variants in {home.root} are being measured already"
            raise BenchRunningError(msg, hint="wait for it, then try again") from error
        yield
    finally:
        os.close(fd)


def is_locked(home: Home) -> bool:
    """Whether an agent works in the home now."""
    try:
        fd = os.open(home.lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
