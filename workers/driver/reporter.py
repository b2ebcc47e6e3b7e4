"""The driver's voice: log lines, metrics and states, sent in order by one thread."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any, Literal, Protocol

from schemas.dataset import DatasetProfile
from schemas.job import (
    TERMINAL_JOB_STATES,
    HeartbeatReply,
    JobCause,
    JobProgress,
    JobState,
    Live,
    LogLine,
    MetricPoint,
    Trial,
    Usage,
)
from workers.client import PATIENCE, backoff
from workers.distributed.logs import Level
from workers.errors import MAX_DETAIL, ApiError, LeaseLostError, RefusedError

_CHANCE = random.Random()  # noqa: S311 - jitter, no secret; a task's own draws stay its own

MAX_BUFFERED = 10_000
"""Log lines and metrics kept while the API is away; the oldest go first."""

MAX_PER_MESSAGE = 1000
MAX_NOTICE = 500
PERIOD = 0.25

CALM = 1.0
"""Seconds between two messages that are sent for live figures or trials alone."""

MARGIN = 60.0
"""Seconds for which a driver trains on after its lease is over by its own clock.

Another attempt may write to the same checkpoints by then. What comes after training
writes to the attempt's own folder, and only the lease's holder can register: it waits
for ``PATIENCE``.
"""


_URGENT = frozenset({"notice", "profile"})
_CALM = frozenset({"live", "trials"})


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
    cancelled, another attempt holds it, or its lease is over by this clock.
    wait: how to wait between tries. clock: seconds that only grow.
    """

    def __init__(
        self,
        sender: Sender,
        job: str,
        attempt: int,
        lease_seconds: float,
        on_stop: Callable[[str], None],
        *,
        wait: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sender = sender
        self._job = job
        self._attempt = attempt
        self._lease_seconds = lease_seconds
        self._on_stop = on_stop
        self._wait = wait or threading.Event().wait
        self._clock = clock
        self._lock = threading.Condition()
        self._logs: deque[LogLine] = deque(maxlen=MAX_BUFFERED)
        self._metrics: deque[MetricPoint] = deque(maxlen=MAX_BUFFERED)
        self._states: deque[Final] = deque()
        self._latest: dict[str, Any] = {}
        self._calm_at = clock() - CALM
        self._epoch: int | None = None
        self._seq = 0
        self._sent_at = clock()
        self._margin = MARGIN
        self._closing = False
        self._heard = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def log(self, level: Level, text: str) -> None:
        """Add a line."""
        with self._lock:
            self._logs.append(LogLine(at=datetime.now(UTC), level=level, text=_text(text)[:4000]))

    def metrics(self, points: Sequence[MetricPoint]) -> None:
        """Add what epochs measured."""
        with self._lock:
            self._metrics.extend(points)
            self._epoch = max((p.epoch for p in points), default=self._epoch)
            self._lock.notify()

    def live(self, live: Live) -> None:
        """How it goes; only the newest is sent."""
        self._set("live", live)

    def trials(self, trials: Sequence[Trial]) -> None:
        """All trials of a sweep; only the newest list is sent."""
        self._set("trials", tuple(trials))

    def usage(self, usage: Usage) -> None:
        """What this attempt has taken so far; goes along with what is sent next."""
        self._set("usage", usage)

    def notice(self, text: str) -> None:
        """What the job waits for; empty: nothing any more."""
        self._set("notice", _text(text)[:MAX_NOTICE])

    def profile(self, profile: DatasetProfile) -> None:
        """What was found in the data."""
        self._set("profile", profile)

    def _set(self, name: str, value: Any) -> None:
        with self._lock:
            self._latest[name] = value
            if name in _URGENT:
                self._lock.notify()

    def enter(self, state: JobState) -> None:
        """The job enters a state that is not its last: training is over."""
        with self._lock:
            self._margin = PATIENCE
            self._states.append(Final(state))
            self._lock.notify()

    def finish(self, final: Final, *, seconds: float | None = None) -> bool:
        """Send everything and the last word. Whether it was answered.

        seconds: how long to wait; as long as the lease may be ours, unless given.
        """
        with self._lock:
            self._margin = PATIENCE
            self._states.append(final)
            self._closing = True
            self._lock.notify()
        self._thread.join(seconds)
        return self._heard

    def _run(self) -> None:
        try:
            while (message := self._next()) is not None and self._deliver(message):
                if message.state in TERMINAL_JOB_STATES:
                    self._heard = True
                    return
        except Exception as error:  # noqa: BLE001 - a driver that cannot speak must end
            self._on_stop(f"reporting failed: {type(error).__name__}: {error}")

    def _next(self) -> JobProgress | None:
        """The next message, when it is due; None after the last word."""
        while True:
            with self._lock:
                if not (self._states or self._closing):
                    self._lock.wait(PERIOD)
                due = self._clock() - self._sent_at >= self._lease_seconds / 3
                if self._logs or self._metrics or self._states or due or self._worth_sending():
                    return self._take()
                if self._closing:
                    return None

    def _worth_sending(self) -> bool:
        """Whether what only its newest value counts of is worth a message of its own."""
        if _URGENT & self._latest.keys():
            return True
        return bool(_CALM & self._latest.keys()) and self._clock() - self._calm_at >= CALM

    def _newest(self) -> dict[str, Any]:
        """What goes along: all of it with a state, live figures not more often than calmly."""
        calm = self._clock() - self._calm_at >= CALM or bool(self._states)
        names = [name for name in self._latest if calm or name not in _CALM]
        if _CALM & set(names):
            self._calm_at = self._clock()
        return {name: self._latest.pop(name) for name in names}

    def _take(self) -> JobProgress:
        logs = [self._logs.popleft() for _ in range(min(len(self._logs), MAX_PER_MESSAGE))]
        points = [self._metrics.popleft() for _ in range(min(len(self._metrics), MAX_PER_MESSAGE))]
        # A state comes after everything that was said before it.
        drained = not self._logs and not self._metrics
        newest = self._newest()
        entered = self._states.popleft() if self._states and drained else None
        self._seq = next_seq(self._seq, time.time_ns() // 1000)
        message = JobProgress(
            attempt=self._attempt,
            seq=self._seq,
            epoch=self._epoch,
            metrics=tuple(points),
            logs=tuple(logs),
            **newest,
        )
        if entered is None:
            return message
        return message.model_copy(
            update={
                "state": entered.state,
                "cause": entered.cause,
                "detail": entered.detail and _text(entered.detail)[:MAX_DETAIL],
                "model": entered.model,
                "version": entered.version,
            }
        )

    def _deliver(self, message: JobProgress) -> bool:
        """Send until it is through. False when there is nothing more to say."""
        for attempt in count(1):
            asked = self._clock()
            try:
                reply = self._sender.progress(self._job, message)
            except LeaseLostError as error:
                return self._stop(str(error))
            except RefusedError as error:
                return self._stop(f"the orchestrator refused a report: {error}")
            except ApiError as error:
                over = self._clock() - self._sent_at - self._lease_seconds
                if over > self._margin:
                    return self._stop(f"the lease has been over for {over:.0f} s: {error}")
                self._wait(backoff(attempt, _CHANCE.random()))
                continue
            # The server renewed the lease after this moment: ours ends no later than its own.
            self._sent_at = asked
            self._lease_seconds = reply.lease_seconds
            if reply.cancel and message.state not in TERMINAL_JOB_STATES:
                return self._stop("cancelled by an operator")
            break
        return True

    def _stop(self, reason: str) -> Literal[False]:
        self._on_stop(reason)
        return False


def _text(text: str) -> str:
    """What UTF-8 can carry: a path or an error of a library may hold half a surrogate."""
    return text.encode("utf-8", "replace").decode("utf-8")
