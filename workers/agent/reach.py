"""The cluster as one that may not answer: asked at most once per round after a failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from schemas.job import Capacity
from workers.agent.follow import Seen
from workers.errors import ClusterError

T = TypeVar("T")

CAPACITY_SECONDS = 5.0


class Drivers(Protocol):
    """The cluster, as the agent uses it: ``workers.agent.ray_jobs.RayJobs``."""

    def look(self, submission: str) -> Seen:
        """What a driver does."""
        ...

    def stop(self, submission: str) -> None:
        """Ask it to end."""
        ...

    def capacity(self) -> Capacity:
        """What there is in all."""
        ...


class Reach:
    """Questions to the cluster, which all run into the same time-out when it hangs.

    away_since: when it stopped to answer; None while it does.
    """

    def __init__(self, drivers: Drivers) -> None:
        self._drivers = drivers
        self._capacity: tuple[float, Capacity] | None = None
        self._ask = True
        self.away_since: float | None = None

    def new_round(self) -> None:
        """It may be asked again."""
        self._ask = True

    def look(self, submission: str, now: float) -> Seen:
        """What a driver does.

        Raises:
            ClusterError: the cluster does not answer.
        """
        return self._asked(lambda: self._drivers.look(submission), now)

    def capacity(self, now: float) -> Capacity:
        """What the cluster has, some seconds old at most; errors as above."""
        if self._capacity is None or now - self._capacity[0] > CAPACITY_SECONDS:
            self._capacity = (now, self._asked(self._drivers.capacity, now))
        return self._capacity[1]

    def _asked(self, question: Callable[[], T], now: float) -> T:
        if not self._ask:
            msg = "the Ray cluster does not answer"
            raise ClusterError(msg)
        try:
            answer = question()
        except ClusterError:
            self._ask = False
            self.away_since = now if self.away_since is None else self.away_since
            raise
        self.away_since = None
        return answer
