"""Following something until it ends: level-triggered, so that nothing missed matters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from orchestrator.client.errors import ArgosyError, WaitTimeoutError, is_outage

T = TypeVar("T")

LOOK_SECONDS = 2.0
"""How often a follower looks when no event rings."""

BREATH_SECONDS = 0.1
"""The least time between two looks, so that a burst of events costs one."""

PATIENCE_SECONDS = 60.0


class Rings(Protocol):
    """What wakes a follower."""

    def wait(self, seconds: float) -> None:
        """Return when there may be news, or after so many seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Look(Generic[T]):
    """What a follower saw. outage: why it saw nothing new, while it tries again."""

    value: T | None
    outage: ArgosyError | None = None


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as a follower uses it; replaced in tests."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep


def follow(
    fetch: Callable[[], T],
    ended: Callable[[T], bool],
    bell: AbstractContextManager[Rings],
    *,
    timeout: float | None = None,
    patience: float = PATIENCE_SECONDS,
    clock: Clock = Clock(),
) -> Iterator[Look[T]]:
    """Yield what ``fetch`` sees, now and at each ring, until it has ``ended``.

    Args:
        fetch: looks once.
        ended: whether what it saw is the last there will be.
        bell: rings when there may be news.
        timeout: seconds after which to give up; None never does.
        patience: seconds of outage to bear.
        clock: the time.

    Raises:
        WaitTimeoutError: the timeout passed.
        ArgosyError: the request is refused, or the platform stays away.
    """
    start = clock.now()
    seen_at = None
    with bell as rings:
        while True:
            now = clock.now()
            try:
                value = fetch()
            except ArgosyError as error:
                # An outage is borne only by those who have seen the platform once.
                if not is_outage(error) or seen_at is None or now - seen_at > patience:
                    raise
                yield Look(None, error)
            else:
                seen_at = now
                yield Look(value)
                if ended(value):
                    return
            left = None if timeout is None else timeout - (clock.now() - start)
            if left is not None and left <= 0:
                raise WaitTimeoutError(timeout or 0.0)
            rings.wait(LOOK_SECONDS if left is None else min(LOOK_SECONDS, left))
            clock.sleep(BREATH_SECONDS)
