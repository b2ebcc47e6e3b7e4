"""What a killed driver had reserved of the cluster, given back at once.

Ray Train asks a coordinator for an elastic job's resources and renews that every 20 s. A
driver that is killed cannot cancel, and its reservation would keep the next attempt, or
another job, waiting for three minutes. So runs are named by attempt, the next one cancels
those before it, and reservations last shorter.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

log = logging.getLogger(__name__)

LASTS = 60
"""Seconds for which a reservation outlives its controller: three times the renewal's."""

ASK_SECONDS = 5.0
_COORDINATOR = "AutoscalingCoordinator"
_ATTEMPT = re.compile(r"(?P<job>.+)-(?P<attempt>\d{1,4})")


def run_of(mark: str, trial: int) -> str:
    """The name of a training run. mark: ``<job>-<attempt>``."""
    return f"{mark}-{trial}"


def runs_before(mark: str, trial: int) -> Iterator[str]:
    """The runs of the same training in earlier attempts."""
    found = _ATTEMPT.fullmatch(mark)
    if found is None:
        return
    for attempt in range(1, int(found["attempt"])):
        yield run_of(f"{found['job']}-{attempt}", trial)


def shorten() -> None:
    """In a controller: let what it reserves end soon after it."""
    from ray.train.v2._internal.execution.scaling_policy import (  # noqa: PLC0415 - there only
        autoscaling_coordinator_client as client,
    )

    client.AUTOSCALING_REQUESTS_EXPIRE_TIME_S = LASTS


def release(mark: str, trial: int) -> None:
    """In a driver: give back what earlier attempts of a training still hold."""
    earlier = list(runs_before(mark, trial))
    if not earlier:
        return
    import ray as module  # noqa: PLC0415 - a second to import

    ray: Any = module  # it ships no types
    try:
        coordinator = ray.get_actor(_COORDINATOR, namespace=_COORDINATOR)
    except ValueError:
        return  # nobody reserved anything
    try:
        ray.get(
            [coordinator.cancel_request.remote(requester_id=f"train-{run}") for run in earlier],
            timeout=ASK_SECONDS,
        )
    except Exception as error:  # noqa: BLE001 - then they run out by themselves
        log.warning("what earlier attempts reserved is held for up to %d s: %s", LASTS, error)
