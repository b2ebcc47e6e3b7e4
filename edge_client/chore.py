"""Slow work on the disk, in a thread of its own: the deciding thread must not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

_T = TypeVar("_T")

Going: TypeAlias = Callable[[], bool]
"""Asked by the work now and then: whether anybody still wants it."""

Spawn: TypeAlias = Callable[[Callable[[], None]], None]
"""Runs something that takes long and raises nothing."""


def at_once(run: Callable[[], None]) -> None:
    """Do it here and now."""
    run()


def in_thread(run: Callable[[], None]) -> None:
    """Do it in a thread that does not keep the process from ending."""
    threading.Thread(target=run, name="chore", daemon=True).start()


class Chore(Generic[_T]):
    """One piece of work, begun when this is made."""

    def __init__(
        self, work: Callable[[Going], _T], *, spawn: Spawn, nudge: Callable[[], None]
    ) -> None:
        """Begin.

        Args:
            work: given whether to go on.
            spawn: runs it.
            nudge: called at its end, from its thread.
        """
        self._work, self._nudge = work, nudge
        self._going = True
        self._ended = threading.Event()
        self._result: list[_T] = []
        self._error: Exception | None = None
        spawn(self._run)

    @property
    def ended(self) -> bool:
        """Whether it is over, well or badly."""
        return self._ended.is_set()

    def result(self) -> _T:
        """What it gave, once it has ended; what it raised is raised."""
        if self._error is not None:
            raise self._error
        return self._result[0]

    def stop(self, patience: float) -> None:
        """Ask it to end, and wait for that so many seconds at most."""
        self._going = False
        self._ended.wait(patience)

    def _run(self) -> None:
        try:
            self._result.append(self._work(lambda: self._going))
        except Exception as error:  # noqa: BLE001 - whoever asks for the result is told
            self._error = error
        finally:
            self._ended.set()
        self._nudge()
