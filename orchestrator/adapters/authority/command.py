"""Running a program of the operator's, within limits of time and output."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

_LOOK_EVERY = 0.02
_LAST_WORDS = 300


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended.

    last_words: the last line of its standard error. stopped: why it was ended before its time.
    """

    code: int
    output: bytes
    last_words: str
    stopped: str | None


def run_limited(command: Sequence[str], given: bytes, *, limit: int, seconds: float) -> Done:
    """Run a program to its end, or end it and all that it started.

    Args:
        command: program and arguments.
        given: its standard input.
        limit: bytes that it may write.
        seconds: how long it may take.

    Raises:
        OSError: it cannot be run.
    """
    with (
        tempfile.TemporaryFile() as source,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        source.write(given)
        source.seek(0)
        process = subprocess.Popen(
            list(command), stdin=source, stdout=out, stderr=err, start_new_session=True
        )
        stopped = _watch(process, (out, err), limit, seconds)
        out.seek(0)
        err.seek(max(0, os.fstat(err.fileno()).st_size - _LAST_WORDS))
        words = err.read(_LAST_WORDS).decode(errors="replace").strip().rpartition("\n")[2]
        return Done(process.returncode, out.read(limit), words, stopped)


def _watch(
    process: subprocess.Popen[bytes], files: Sequence[IO[bytes]], limit: int, seconds: float
) -> str | None:
    deadline, stopped = time.monotonic() + seconds, None
    try:
        while stopped is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_EVERY)
                break
            if time.monotonic() >= deadline:
                stopped = f"took over {seconds:g} s"
            elif _too_much(files, limit):
                stopped = f"said more than {limit} bytes"
    finally:
        # What it left running in its session ends with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return stopped or (f"said more than {limit} bytes" if _too_much(files, limit) else None)


def _too_much(files: Sequence[IO[bytes]], limit: int) -> bool:
    return any(os.fstat(file.fileno()).st_size > limit for file in files)
