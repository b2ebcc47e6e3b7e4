"""The two timers of an execution, and the wait before another attempt.

An execution has one time at which its next timer runs out, so that a round asks the database
for what is due and for nothing else. What then happens depends on whether the device is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from orchestrator.domain.execution import AT_WORK
from orchestrator.domain.pace import open_for, open_seconds
from schemas.maintenance import for_download
from schemas.pace import MaintenanceWindow, Mode
from schemas.rollout import ExecState, RolloutSpec

MAX_SECONDS = 10 * 365 * 86400.0
"""No timer is longer, whatever a spec says: a time must stay one that a database can hold."""

MAX_RETRY_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds, as ``RolloutSpec`` explains them.

    probation: the longest that a device judges. shadow: the longest that it tries a version
    beside the one that serves. deferral: how long it may be put off. mode, windows: when a device
    may wait besides.
    """

    offer: float
    step: float
    straggler: float
    retry: float = 10.0
    max_attempts: int = 1
    probation: float = 0.0
    shadow: float = 0.0
    deferral: float = 0.0
    jitter: float = 0.0
    mode: Mode = field(default_factory=Mode)
    windows: tuple[MaintenanceWindow, ...] = ()

    @classmethod
    def of(cls, spec: RolloutSpec) -> Self:
        """Those of a rollout."""
        return cls(
            offer=spec.offer_seconds,
            step=spec.step_seconds,
            straggler=spec.straggler_seconds,
            retry=spec.retry_seconds,
            max_attempts=spec.max_attempts,
            probation=spec.probation.max_seconds,
            shadow=spec.shadow.max_seconds if spec.shadow is not None else 0.0,
            deferral=spec.max_deferral_seconds,
            jitter=spec.pace.jitter_seconds,
            mode=spec.mode,
            windows=spec.windows,
        )

    def waited(self, since: datetime, now: datetime, enough: float) -> float:
        """Seconds in which devices could have been offered something, as far as they matter."""
        return open_seconds(for_download(self.windows), since, now, enough)

    def patience_ends(self, since: datetime) -> datetime:
        """When a device that vanished is waited for no longer: its time counts as in ``waited``."""
        patience = min(self.straggler, MAX_SECONDS)
        return open_for(for_download(self.windows), since, patience, after(since, MAX_SECONDS))


def after(since: datetime, seconds: float) -> datetime:
    """The time so many seconds later."""
    return since + timedelta(seconds=min(seconds, MAX_SECONDS))


def before(now: datetime, seconds: float) -> datetime:
    """The time so many seconds earlier."""
    return now - timedelta(seconds=min(seconds, MAX_SECONDS))


def due_at(state: ExecState, since: datetime, timers: Timers) -> datetime | None:
    """When the timer of a state runs out; None where nothing is waited for.

    Args:
        state: of the execution.
        since: its last change of state or progress.
        timers: of its rollout.
    """
    if state is ExecState.OFFERED:
        return after(since, timers.offer)
    if state is ExecState.UNKNOWN:
        return timers.patience_ends(since)
    return after(since, _step(state, timers)) if state in AT_WORK else None


def _step(state: ExecState, timers: Timers) -> float:
    """Seconds without a word. While it judges, a device that nobody asks waits for all its time."""
    judging = {ExecState.PROBATION: timers.probation, ExecState.SHADOWING: timers.shadow}
    return timers.step + judging.get(state, 0.0)


def retry_at(attempt: int, failed_at: datetime, timers: Timers) -> datetime:
    """When the attempt after ``attempt`` may be offered.

    The wait doubles with each, up to 10 minutes.
    """
    exponent = min(attempt - 1, 32)  # beyond it the limit holds anyway, and a float stays finite
    return after(failed_at, min(MAX_RETRY_SECONDS, timers.retry * 2.0**exponent))


def expired(state: ExecState, *, online: bool) -> ExecState | None:
    """What becomes of an execution whose timer ran out; None where it has no timer.

    A device that is there and does nothing has failed; one that is gone keeps its place, or
    is offered again where it had not answered.
    """
    if state is ExecState.UNKNOWN:
        return ExecState.TIMED_OUT
    if state is ExecState.OFFERED:
        return ExecState.TIMED_OUT if online else ExecState.SCHEDULED
    if state in AT_WORK:
        return ExecState.TIMED_OUT if online else ExecState.UNKNOWN
    return None


def why(state: ExecState, timers: Timers) -> str:
    """What is said of an execution whose timer ran out, with the time in seconds."""
    if state is ExecState.OFFERED:
        return f"no answer to the offer in {timers.offer:g} s"
    if state is ExecState.UNKNOWN:
        return f"the device was not seen again in {timers.straggler:g} s"
    if state is ExecState.DEFERRED:
        limit = f"of at most {timers.deferral:g} s" if timers.deferral else "which is not allowed"
        return f"no progress {timers.step:g} s after the end of its deferral, {limit}"
    return f"no progress in {state} for {_step(state, timers):g} s"
