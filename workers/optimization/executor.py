"""Where the trials of a search run: here, one after the other, or on a cluster at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from schemas.job import JobCause
from workers.blame import blame

A = TypeVar("A")
B = TypeVar("B")

MAX_REASON = 500

_TRANSIENT = frozenset({JobCause.DRIVER_DIED, JobCause.RESOURCES})
"""Causes of the machinery's making: another attempt may well succeed."""


@dataclass(frozen=True, slots=True)
class TrialFailed:
    """Why one trial gave nothing; the others go on.

    cause: as of a job. detail: what, where and what to do next, as far as it is known.
    """

    cause: JobCause
    detail: str

    @property
    def reason(self) -> str:
        """The detail as one line, for a manifest."""
        return " ".join(self.detail.split())[:MAX_REASON] or str(self.cause)

    @property
    def transient(self) -> bool:
        """Whether the machinery failed, not the trial: nothing to be remembered."""
        return self.cause in _TRANSIENT


class Executor(Protocol):
    """Calls a function for each of several arguments."""

    def map(
        self, function: Callable[[A], B], arguments: Sequence[A]
    ) -> Iterator[tuple[int, B | TrialFailed]]:
        """Yield each argument's index and result, in the order in which they end.

        Each index comes exactly once. It never raises for one call: what the call raised is
        yielded as a ``TrialFailed``. A caller that stops early closes the iterator, which
        ends what still runs.

        Args:
            function: of a module that every machine has, as it travels by name.
            arguments: picklable, as are the results.
        """
        ...


class LocalExecutor:
    """Calls one after the other, in this process; each when it is asked for."""

    def map(
        self, function: Callable[[A], B], arguments: Sequence[A]
    ) -> Iterator[tuple[int, B | TrialFailed]]:
        """See ``Executor``. An interrupt by the user passes."""
        for index, argument in enumerate(arguments):
            yield index, _call(function, argument)


def _call(function: Callable[[A], B], argument: A) -> B | TrialFailed:
    try:
        return function(argument)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit too: a task does not end us
        return failed(error)


def failed(error: BaseException) -> TrialFailed:
    """What a call raised, as its result."""
    found = blame(error)
    return TrialFailed(found.cause, found.detail)


_watchers: list[Callable[[], None]] = []


@contextmanager
def beating(tell: Callable[[], None]) -> Iterator[None]:
    """Within: ``beat`` calls ``tell``, such as a watchdog's, whatever thread it is in."""
    _watchers.append(tell)
    try:
        yield
    finally:
        _watchers.remove(tell)


def beat() -> None:
    """Say that work goes on in this process: a batch, or a task elsewhere that is watched."""
    for tell in _watchers:
        tell()
