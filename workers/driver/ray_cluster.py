"""The cluster that this process is connected to, as the pump asks it."""

from __future__ import annotations

from typing import Any

from schemas.jobfile import JobSpec
from workers.driver.waiting import Offer, lacks, unplaced


class RayCluster:
    """What Ray says of resources."""

    def __init__(self, spec: JobSpec) -> None:
        import ray  # noqa: PLC0415 - in a driver only

        self._ray: Any = ray
        self._spec = spec
        self._job = ray.get_runtime_context().get_job_id()

    def offer(self) -> Offer:
        """What the cluster has and what of it is free."""
        return Offer(self._ray.cluster_resources(), self._ray.available_resources())

    def stuck(self) -> bool:
        """Whether what was asked for is not given."""
        if self._spec.batch is not None:
            # Ray Data asks for no placement group, and its actors hold what is not free.
            return lacks(self._spec.resources, self._ray.cluster_resources())
        return unplaced(self._ray.util.placement_group_table(), self._job)
