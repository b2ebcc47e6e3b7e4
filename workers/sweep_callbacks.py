"""How the epochs of a Ray Train run reach the Ray Tune trial around it.

Named in ``RAY_TRAIN_CALLBACKS`` of a trial's process, which is where Ray Train looks for
callbacks besides those of its caller: so the training itself knows nothing of sweeps.
"""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.callbacks.user_callback import UserCallbackHandler
from ray.tune.integration.ray_train import TuneReportCallback


class TuneForwarder(UserCallbackHandler):
    """Hands each epoch that all workers have reported to the trial."""

    def __init__(self) -> None:
        report: Any = TuneReportCallback
        no_context: Any = None  # which the callback does not look at
        super().__init__(user_callbacks=[report()], train_run_context=no_context)
