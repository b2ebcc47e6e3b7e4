"""A process that is killed, or a disk that fills up, at every single step of what it writes."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

STEPS = ("fsync", "replace", "mkdir", "unlink", "rmdir")
"""The calls by which files change; what pathlib and shutil do goes through them."""

WRITES = ("open", "fsync", "replace", "mkdir")
DONE, FAULT = 0, 3


def killed_at_each_step(
    prepare: Callable[[], None], action: Callable[[], object], most: int = 120
) -> Iterator[int]:
    """Run ``action`` in processes that die by SIGKILL before their 1st, 2nd … step.

    Yields the number of the step after each death; ends when the action came to its end.
    """
    for step in range(1, most):
        prepare()
        pid = os.fork()
        if pid == 0:
            _die_at(step, action)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == DONE
            assert step > 1
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        yield step
    pytest.fail(f"it did not come to its end in {most} steps")


def _die_at(step: int, action: Callable[[], object]) -> None:
    left = step

    def counted(call):
        def counting(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counting

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    try:
        action()
    except BaseException as error:  # noqa: BLE001 - this process ends here, whatever it was
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(FAULT)
    os._exit(DONE)


def without_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies loses nothing that it has written; only a machine that dies does."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


@contextmanager
def full_from(step: int) -> Iterator[list[bool]]:
    """From its ``step``-th write on the disk is full. Yields whether it came to that."""
    left, hit = step, [False]
    kept = {name: getattr(os, name) for name in WRITES}

    def failing(name):
        def call(*args, **kwargs):
            nonlocal left
            if name == "open" and not (len(args) > 1 and args[1] & os.O_CREAT):
                return kept[name](*args, **kwargs)
            left -= 1
            if left <= 0:
                hit[0] = True
                raise OSError(errno.ENOSPC, "No space left on device")
            return kept[name](*args, **kwargs)

        return call

    for name in WRITES:
        setattr(os, name, failing(name))
    try:
        yield hit
    finally:
        for name, call in kept.items():
            setattr(os, name, call)
