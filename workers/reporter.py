"""The driver's voice: log lines, metrics and states, sent in order by one thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from schemas.job import (
    HeartbeatReply,
    JobCause,
    JobProgress,
    JobState,
    LogLine,
    MetricPoint,
)
from workers.errors import ApiUnavailableError, LeaseLostError, RefusedError

MAX_BUFFERED = 10_000
"""Log lines and metrics kept while the API is away; the oldest go first."""

MAX_PER_MESSAGE = 1000
PERIOD = 0.25
Level = Literal["debug", "info", "warning", "error"]


class Sender(Protocol):
    """Where reports go: ``Api.progress`` for a real job."""

    def progress(self, job: str, progress: JobProgress) -> HeartbeatReply:
        """Send one report."""
        ...


@dataclass(frozen=True, slots=True)
class Final:
    """A job's last word."""

    state: JobState
    cause: JobCause | None = None
    detail: str | None = None
    model: str | None = None
    version: int | None = None


def next_seq(last: int, clock_us: int) -> int:
    """The number of the next report: microseconds since 1970, but always one more.

    So it keeps growing when a driver is started again within an attempt.
    """
    return max(last + 1, clock_us)


class Reporter:
    """Collects what is to be said and sends it, at the latest every ``PERIOD`` seconds.

    on_stop: called once, from the sending thread, when the job is to end: it was
    cancelled, or another attempt holds it.
    """

    def __init__(
        self,
        sender: Sender,
        job: str,
        attempt: int,
        lease_seconds: float,
        on_stop: Callable[[str], None],
    ) -> None:
        self._sender = sender
        self._job = job
        self._attempt = attempt
        self._keep_alive = lease_seconds / 3
        self._on_stop = on_stop
        self._lock = threading.Condition()
        self._logs: deque[LogLine] = deque(maxlen=MAX_BUFFERED)
        self._metrics: deque[MetricPoint] = deque(maxlen=MAX_BUFFERED)
        self._states: deque[Final] = deque()
        self._epoch: int | None = None
        self._seq = 0
        self._sent_at = time.monotonic()
        self._closing = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def log(self, level: Level, text: str) -> None:
        """Add a line."""
        with self._lock:
            self._logs.append(LogLine(at=datetime.now(UTC), level=level, text=text[:4000]))

    def metrics(self, points: Sequence[MetricPoint]) -> None:
        """Add what epochs measured."""
        with self._lock:
            self._metrics.extend(points)
            self._epoch = max((p.epoch for p in points), default=self._epoch)
            self._lock.notify()

    def enter(self, state: JobState) -> None:
        """The job enters a state that is not its last."""
        with self._lock:
            self._states.append(Final(state))
            self._lock.notify()

    def finish(self, final: Final, *, seconds: float = 60.0) -> bool:
        """Send everything and the last word. Whether it was heard."""
        with self._lock:
            self._states.append(final)
            self._closing = True
            self._lock.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive() and not self._stopped

    def _run(self) -> None:
        while True:
            with self._lock:
                if not (self._states or self._closing):
                    self._lock.wait(PERIOD)
                due = time.monotonic() - self._sent_at >= self._keep_alive
                if not (self._logs or self._metrics or self._states or due):
                    if self._closing:
                        return
                    continue
                message = self._take()
            if not self._deliver(message):
                return

    def _take(self) -> JobProgress:
        logs = [self._logs.popleft() for _ in range(min(len(self._logs), MAX_PER_MESSAGE))]
        points = [self._metrics.popleft() for _ in range(min(len(self._metrics), MAX_PER_MESSAGE))]
        # A state comes after everything that was said before it.
        drained = not self._logs and not self._metrics
        entered = self._states.popleft() if self._states and drained else None
        self._seq = next_seq(self._seq, time.time_ns() // 1000)
        message = JobProgress(
            attempt=self._attempt,
            seq=self._seq,
            epoch=self._epoch,
            metrics=tuple(points),
            logs=tuple(logs),
        )
        if entered is None:
            return message
        return message.model_copy(
            update={
                "state": entered.state,
                "cause": entered.cause,
                "detail": entered.detail,
                "model": entered.model,
                "version": entered.version,
            }
        )

    def _deliver(self, message: JobProgress) -> bool:
        """Send until it is through. False when there is nothing more to say."""
        while True:
            try:
                reply = self._sender.progress(self._job, message)
            except ApiUnavailableError:
                continue  # the client has waited between its tries already
            except LeaseLostError as error:
                self._stop(str(error))
                return False
            except RefusedError as error:
                self._stop(f"the orchestrator refused a report: {error}")
                return False
            self._sent_at = time.monotonic()
            self._keep_alive = reply.lease_seconds / 3
            if reply.cancel:
                self._stop("cancelled by an operator")
                return False
            return True

    def _stop(self, reason: str) -> None:
        self._stopped = True
        self._on_stop(reason)


class ReportingHandler(logging.Handler):
    """Sends the records of a logger to the API."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.INFO)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        """Add one record."""
        self._reporter.log(level_of(record.levelno), self.format(record))


def level_of(number: int) -> Level:
    """The wire's name of a logging level."""
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"
