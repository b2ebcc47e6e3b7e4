"""What a killed driver had reserved of the cluster, given back at once.

Ray Train asks a coordinator for an elastic job's resources and renews that every 20 s. A
driver that is killed cannot cancel, and its reservation would keep the next attempt, or
another job, waiting for three minutes. So runs are named by attempt, the next one cancels
those before it, and reservations last shorter.

The coordinator is one actor for all jobs of a cluster, made by whichever comes first. Left to
Ray, it would run in that job's environment, with its token, and end with its processes: the
others would find nothing reserved, and shrink. So a driver makes it, as nobody's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

from workers.order import CODE, JOB_DIR, JOB_ID, JOB_TOKEN, MARK, REQUIREMENTS

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


NOBODYS = dict.fromkeys((MARK, JOB_ID, JOB_TOKEN, JOB_DIR, CODE, REQUIREMENTS), "")
"""The variables of a process that serves all jobs: empty counts as unset."""


def share() -> None:
    """In a driver: see that the coordinator is there, and is nobody's."""
    import ray as module  # noqa: PLC0415 - a second to import
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (  # noqa: PLC0415 - with it
        _AutoscalingCoordinatorActor,
    )
    from ray.util.scheduling_strategies import (  # noqa: PLC0415 - likewise
        NodeAffinitySchedulingStrategy,
    )

    ray: Any = module  # it ships no types
    here = ray.get_runtime_context().get_node_id()
    made = ray.remote(_AutoscalingCoordinatorActor).options(
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        name=_COORDINATOR,
        namespace=_COORDINATOR,
        get_if_exists=True,
        lifetime="detached",
        # Soft, unlike Ray's own: a node that is lost must not take it along for good.
        scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
        runtime_env={"env_vars": NOBODYS},
    )
    try:
        made.remote()
    except Exception as error:  # noqa: BLE001 - then the controller makes one
        log.warning("the coordinator of resources is not shared: %s", error)


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
