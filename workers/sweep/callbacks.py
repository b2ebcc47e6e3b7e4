"""How a Ray Train run tells the Ray Tune trial around it what it does.

Named in ``RAY_TRAIN_CALLBACKS`` of a trial's process, which is where Ray Train looks for
callbacks besides those of its caller: so the training itself knows nothing of sweeps.
"""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    ReportCallback,
    WorkerGroupCallback,
)

CONTROLLER, GROUP, EPOCH = "controller", "group", "epoch"

channel: Any = None
"""Of this process's trial: a ``ray.util.queue.Queue``, set before the training starts."""


class Forwarder(ControllerCallback, WorkerGroupCallback, ReportCallback):
    """Puts ``(kind, value)`` into the trial's channel; made in the trial, runs in the controller.

    controller: the handle of the actor. group: the id of the placement group of workers
    that started. epoch: what all workers reported.
    """

    def __init__(self) -> None:
        self._channel = channel

    def after_controller_start(self, train_run_context: Any) -> None:
        """Who can end this training."""
        del train_run_context
        import ray  # noqa: PLC0415 - as Any: its types do not know the handle

        cluster: Any = ray
        self._channel.put((CONTROLLER, cluster.get_runtime_context().current_actor))

    def after_worker_group_start(self, worker_group: Any) -> None:
        """What the workers reserve is held by their placement group."""
        handle = worker_group.get_worker_group_state().placement_group_handle
        self._channel.put((GROUP, handle.placement_group.id.hex()))

    def after_report(self, training_report: Any, metrics: list[dict[str, Any]]) -> None:
        """The workers' figures are the same, being reduced."""
        del training_report
        self._channel.put((EPOCH, metrics[0]))
