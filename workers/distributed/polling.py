"""How often Ray Train's controller asks the workers: as often as there is something to hear.

It takes one report per poll, so short epochs want short polls; but every poll takes time from
the cores that train, where there are few.
"""

from __future__ import annotations

from typing import Any

SHORTEST, LONGEST = 0.1, 1.0
"""Seconds between two polls. At most so long after it, the loss of a worker is noticed."""

SHARE = 0.1
"""Of an epoch, that its report may wait."""

_seconds = [SHORTEST]


def interval(epoch_seconds: float) -> float:
    """Seconds between polls when epochs take so many."""
    return min(LONGEST, max(SHORTEST, SHARE * epoch_seconds))


def heard(epoch_seconds: float) -> None:
    """In a controller: an epoch was reported that took so long."""
    _seconds[0] = interval(epoch_seconds)


def install() -> None:
    """In a controller: poll at this pace from now on."""
    from ray.train.v2._internal.execution.controller.controller import (  # noqa: PLC0415
        TrainController,
    )

    kind: Any = TrainController
    if getattr(kind, "_argosy_paced", False):
        return
    original = kind._poll_workers  # noqa: SLF001 - the interval is fixed when it is made

    async def paced(self: Any) -> Any:
        self._health_check_interval_s = _seconds[0]
        return await original(self)

    kind._poll_workers, kind._argosy_paced = paced, True  # noqa: SLF001 - likewise
