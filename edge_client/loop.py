"""What drives the agent's one deciding thread: events from other threads, and jobs by the clock."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from edge_client.renewal_work import RenewalEnded
from edge_client.staging import TrialEnded
from edge_client.transport import TransportEvent

MAX_EVENTS = 1000
POST_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Nudge:
    """There is something to do for the updater; it knows what."""


AgentEvent: TypeAlias = TransportEvent | TrialEnded | RenewalEnded | Nudge


class Events:
    """Events on their way to the deciding thread, at most ``MAX_EVENTS``."""

    def __init__(self) -> None:
        self._queue: queue.Queue[AgentEvent] = queue.Queue(MAX_EVENTS)

    def post(self, event: AgentEvent) -> None:
        """Hand an event over, from any thread.

        A nudge is of no use when there is no room, the rest waits for it; a verdict as long as
        it takes, as nothing would repeat it.
        """
        try:
            if isinstance(event, Nudge):
                with contextlib.suppress(queue.Full):  # then it is awake
                    self._queue.put_nowait(event)
            else:
                patience = None if isinstance(event, TrialEnded | RenewalEnded) else POST_SECONDS
                self._queue.put(event, timeout=patience)
        except queue.Full:
            log.warning("the agent is too busy; a message was dropped")

    def take(self, timeout: float) -> Iterator[AgentEvent]:
        """What has come; the first of it is waited for, at most ``timeout`` seconds."""
        for taken in range(MAX_EVENTS):
            try:
                if taken == 0 and timeout > 0:
                    event = self._queue.get(timeout=timeout)
                else:
                    event = self._queue.get_nowait()
            except queue.Empty:
                return
            yield event


class Jobs:
    """Things done every so often. clock: seconds that only grow."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._jobs: list[tuple[float, Callable[[], None]]] = []
        self._due: list[float] = []

    def add(self, every: float, job: Callable[[], None]) -> None:
        """Do ``job`` every so many seconds, first after that time."""
        self._jobs.append((every, job))
        self._due.append(self._clock() + every)

    def next_at(self) -> float:
        """When the next one is due."""
        return min(self._due)

    def run(self) -> None:
        """Do those that are due."""
        now = self._clock()
        for index, (every, job) in enumerate(self._jobs):
            if now >= self._due[index]:
                self._due[index] = now + every
                job()


def guarded_thread(
    name: str, target: Callable[[], None], on_death: Callable[[str], None]
) -> threading.Thread:
    """A thread; when its work dies the whole agent ends, never half of it."""

    def work() -> None:
        try:
            target()
        except Exception as error:  # whatever it was, it must be seen
            log.exception("the %s died", name)
            on_death(f"the {name} died: {error}")

    return threading.Thread(target=work, name=name, daemon=True)
