"""How a driver ends: its last word, said once, whoever has it."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import suppress
from typing import Any, NoReturn

from schemas.errors import Exit
from schemas.job import JobCause, JobState
from workers.driver.reporter import Final, Reporter
from workers.errors import JobFailed
from workers.order import SAID_FAILED

log = logging.getLogger("workers.driver")


class Ending:
    """The job's last word: whoever comes first says it."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._taken = threading.Lock()

    def say(self, final: Final | None) -> int:
        """Say it; the exit code. None: nothing, so that the agent reports a dead driver."""
        if not self._taken.acquire(blocking=False):
            threading.Event().wait()  # the other one ends the process
        if final is None or not self._reporter.finish(final):
            return Exit.FAILED
        return Exit.OK if final.state is JobState.SUCCEEDED else SAID_FAILED

    def failed(self, failure: JobFailed) -> int:
        """Say a failure; the exit code."""
        # The last line of the driver's own log is what the agent quotes.
        log.error("failed (%s): %s", failure.cause, failure.detail)
        return self.say(final_of(failure))

    def cut(self, failure: JobFailed) -> NoReturn:
        """Say a failure and end the process, from a thread beside the main one."""
        leave(self.failed(failure))


def leave(code: int) -> NoReturn:
    """Exit at once: Ray's exit hooks wait for processes that the agent ends anyway."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a task may have closed or replaced it
            stream.flush()
    os._exit(code)


def final_of(failure: JobFailed) -> Final | None:
    """A failure as the job's last word; None when the machinery failed, not the job.

    A FAILED would be the job's end. Without it the agent reports a dead driver, and the
    next attempt goes on from the last checkpoint.
    """
    if failure.cause is JobCause.DRIVER_DIED:
        return None
    return Final(JobState.FAILED, cause=failure.cause, detail=failure.detail)


def stderr() -> Any:
    """This process's own: what goes there is kept by Ray, and not sent to the API."""
    return getattr(sys.stderr, "original", sys.stderr)
