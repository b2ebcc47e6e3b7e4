"""Notices when training stands still, and says where.

A collective that waits for a lost worker, a lock, an endless loop: none of them raises.
The watchdog is a thread beside the loop. Without a beat for long enough, it reads the
loop's stack and tells once where it stands; ending the process is its caller's business.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from types import TracebackType
from typing import Self

from workers.blame import Origin, origin_of

log = logging.getLogger(__name__)

POLLS = 20
"""Looks per deadline: a hang is noticed at most a twentieth later than it is one."""

_COLLECTIVES = ("torch/distributed/",)
_LOADING = ("torch/utils/data/", "multiprocessing/")


@dataclass(frozen=True, slots=True)
class Hang:
    """A worker that makes no steps.

    detail: since when, and where it stands. user_code: it stands in the user's code, and
    not in a wait for another worker, which is but a consequence.
    """

    rank: int
    detail: str
    user_code: bool


class Watchdog:
    """Calls ``on_hang`` once when no beat came for ``seconds``.

    It watches the thread that beat last (at first: the one that called ``start``), which
    need not be the main one.

    Args:
        seconds: without a beat that are a hang.
        rank: of this worker.
        on_hang: called on the watchdog's own thread.
        clock: seconds, monotonic.
        wait: waits so many seconds at most, and says whether the watchdog was stopped.
    """

    def __init__(
        self,
        seconds: float,
        rank: int,
        on_hang: Callable[[Hang], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._seconds = seconds
        self._rank = rank
        self._on_hang = on_hang
        self._clock = clock
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._thread: threading.Thread | None = None
        self._last = clock()
        self._watched = threading.get_ident()

    def beat(self) -> None:
        """Say that the loop goes on. Cheap: two assignments."""
        self._last = self._clock()
        self._watched = threading.get_ident()

    def start(self) -> None:
        """Begin to watch the calling thread."""
        self.beat()
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch. Harmless if it never began, and from within ``on_hang``."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._wait(self._seconds / POLLS):
            still = self._clock() - self._last
            if still >= self._seconds:
                self._tell(still)
                return

    def _tell(self, still: float) -> None:
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - the documented way to another thread's stack
        stack = traceback.extract_stack(frame) if frame is not None else []
        hang = explain(list(stack), self._rank, still)
        log.error("%s", hang.detail)
        self._on_hang(hang)


def explain(stack: list[traceback.FrameSummary], rank: int, still: float) -> Hang:
    """What a stack (innermost frame last) says of a hang of ``still`` seconds."""
    since = f"no step for {still:.0f} s"
    at = next((i for i in reversed(range(len(stack))) if _is_ours_or_users(stack[i])), None)
    if at is None:
        where = _place(stack[-1]) if stack else "its thread has ended"
        return Hang(rank, f"{since}: {where}", user_code=False)
    inner = stack[at + 1 :]
    where = f"{since}: {_place(stack[at])}"
    if _within(inner, _COLLECTIVES):
        return Hang(rank, f"{where}, waiting for the other workers", user_code=False)
    users = origin_of(stack[at].filename) is Origin.USER
    if not users and _within(inner, _LOADING):
        return Hang(rank, f"{where}, waiting for the task's data set to load", user_code=True)
    return Hang(rank, where, user_code=users)


def _is_ours_or_users(frame: traceback.FrameSummary) -> bool:
    return origin_of(frame.filename) is not Origin.LIBRARY


def _within(frames: list[traceback.FrameSummary], parts: tuple[str, ...]) -> bool:
    return any(part in frame.filename for frame in frames for part in parts)


def _place(frame: traceback.FrameSummary) -> str:
    return f"{PurePath(frame.filename).name}:{frame.lineno} in {frame.name}"
