"""One trial of a sweep, in a process that Ray Tune starts: the driver of a Ray Train run.

The training runs in a thread; each ``step`` that Tune asks for is the next epoch that it
reports. It reserves none of the cores that its workers need.

Not the function that Ray documents for Tune around Train, with its ``TuneReportCallback``:
there the actor's main thread reports what the training sent, and waits for ever if the
function reports or returns at that moment; and a function that Tune stops leaves the
placement group of its workers behind.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ray.tune import Trainable

from schemas.jobfile import JobSpec
from workers.blame import blame
from workers.sweep.plan import Parameters, apply
from workers.sweep.record import TRANSIENT, storage_of
from workers.sweep.reports import CONFIG, GROUP, done_report, failed_report

if TYPE_CHECKING:
    from workers.distributed.train import Fitted

Fit = Callable[..., "Fitted"]
"""As ``workers.distributed.train.fit``."""

FORWARDER = "workers.sweep.callbacks.Forwarder"
POLL = 0.2
ABORT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the trials of a sweep share. spec: as JSON. parameters, rungs: by trial.

    rungs: what an earlier attempt measured at ASHA's milestones. fit: instead of
    ``workers.distributed.train.fit``.
    """

    spec: str
    storage: str
    mailbox: str
    metric: str
    parameters: Mapping[int, Parameters]
    rungs: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    fit: Fit | None = None


class SweepTrial(Trainable):
    """Gives the epochs of a training one by one, and says how it ended.

    A failure of the job's own making is said, not raised: Tune starts again what raises.
    """

    def setup(self, config: dict[str, Any], shared: Assignment | None = None) -> None:
        """Start the training."""
        from ray.util.queue import Queue  # noqa: PLC0415 - as Any

        from workers.sweep import callbacks as sweep_callbacks  # noqa: PLC0415 - here it is set

        assert shared is not None  # noqa: S101 - tune.with_parameters gives it
        number = int(config[CONFIG])
        # ASHA is new at each attempt: it hears again what it heard of this trial.
        rungs = sorted(shared.rungs.get(number, {}).items())
        self._waiting = deque({"epoch": epoch, shared.metric: value} for epoch, value in rungs)
        self._outcome: Fitted | Exception | None = None
        self._controller: Any = None
        queue: Any = Queue
        self._channel = queue(actor_options={"num_cpus": 0})
        sweep_callbacks.channel = self._channel
        os.environ["RAY_TRAIN_CALLBACKS"] = FORWARDER
        # A daemon: a trial that is stopped ends at once.
        self._thread = threading.Thread(target=self._train, args=(shared, number), daemon=True)
        self._thread.start()

    def step(self) -> dict[str, Any]:
        """The next report."""
        while not self._waiting:
            # Asked first: what was put before the training ended is there by then.
            ended = not self._thread.is_alive()
            if not self._receive(0.0 if ended else POLL) and ended:
                return self._last_report()
        return self._waiting.popleft()

    def cleanup(self) -> None:
        """End the training in order, if it still runs: it frees what its workers reserve."""
        import ray  # noqa: PLC0415 - as Any

        cluster: Any = ray
        while self._receive(0.0):
            pass
        if not self._thread.is_alive() or self._controller is None:
            return
        # It answers by ending.
        with contextlib.suppress(cluster.exceptions.RayError):
            cluster.get(self._controller.abort.remote(), timeout=ABORT_SECONDS)

    def _receive(self, seconds: float) -> bool:
        """Take one message of the training's controller; whether there was one."""
        from ray.util.queue import Empty  # noqa: PLC0415 - see setup

        from workers.sweep import callbacks as said  # noqa: PLC0415 - see setup

        try:
            kind, value = self._channel.get(timeout=seconds)
        except Empty:
            return False
        if kind == said.CONTROLLER:
            self._controller = value
        elif kind == said.GROUP:
            self._waiting.append({GROUP: value})
        else:
            self._waiting.append(value)
        return True

    def _train(self, shared: Assignment, number: int) -> None:
        try:
            fit = shared.fit
            if fit is None:
                from workers.distributed.train import fit as train_fit  # noqa: PLC0415 - not where it is given

                fit = train_fit
            spec = apply(JobSpec.model_validate_json(shared.spec), shared.parameters[number])
            storage = storage_of(shared.storage, number)
            self._outcome = fit(spec, storage, shared.mailbox, trial=number)
        except Exception as error:  # noqa: BLE001 - judged in _last_report
            self._outcome = error

    def _last_report(self) -> dict[str, Any]:
        outcome = self._outcome
        if outcome is None:
            msg = "the training ended without a word"
            raise RuntimeError(msg)
        if not isinstance(outcome, Exception):
            return done_report(outcome.epochs, outcome.best)
        failure = blame(outcome)
        if failure.cause in TRANSIENT:
            raise failure from outcome  # Tune starts the trial again, a few times
        return failed_report(failure)
