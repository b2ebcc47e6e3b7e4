"""A sweep: several trainings of one job through Ray Tune, of which the best is kept.

Tune starts the trials, runs so many at once and, with ASHA, ends the worse of them early.
What has been reached is kept in a record of our own (``sweep_record``), so that an attempt
whose driver was killed is followed by one that runs only what had not ended.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.job import JobCause, Trial
from schemas.jobfile import JobSpec
from workers.errors import JobFailed
from workers.sweep import record as records
from workers.sweep.keeper import Keeper, OnTrials
from workers.sweep.plan import Parameters, apply, at_once, plan
from workers.sweep.record import Record, storage_of
from workers.sweep.reports import CONFIG

if TYPE_CHECKING:
    from workers.distributed.train import Fitted
    from workers.sweep.trial import Fit

log = logging.getLogger(__name__)

RETRIES = 2
"""Starts more that Tune gives a trial whose process or machinery failed."""

TUNE_ENVIRONMENT = {
    # Three kinds of files per trial, and a table on the terminal: nobody reads them here.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # A trial's last report says how it ended, and has no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # A handler that ends the search in its own time; a driver ends at once.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}

SCRATCH = ".tune-"
Collect = Callable[[JobSpec, str], "Fitted"]
"""Reads a trial's best checkpoint from its storage."""


@dataclass(frozen=True, slots=True)
class Best:
    """The winner. spec: with its parameters and without the sweep. trials: all of them."""

    spec: JobSpec
    fitted: Fitted
    trials: tuple[Trial, ...]
    parameters: Parameters


def search(
    spec: JobSpec,
    storage: str,
    mailbox_name: str,
    on_trials: OnTrials,
    *,
    fit: Fit | None = None,
    collect: Collect | None = None,
) -> Best:
    """Run the trials that have not ended yet, and choose the best of all.

    Args:
        spec: the job, with a sweep.
        storage: the job's folder or URL, seen by every node; trials keep theirs below it.
        mailbox_name: where the workers' metrics go, each with its trial's number.
        on_trials: told of all trials whenever one changes.
        fit: trains one trial; ``distributed.train.fit`` unless given.
        collect: reads a trial's best checkpoint; ``distributed.train.collect`` unless given.

    Raises:
        UsageError: a trial would be no valid job.
        JobFailed: all trials failed; with the first one's cause.
    """
    found = records.load(storage)
    record = records.new_record(plan(spec)) if found is None else records.reopened(found)
    keeper = Keeper(record, spec, storage, on_trials)
    keeper.begin()
    target = records.at_target(record, spec.stop.target)
    if record.open() and target is None:
        _run(spec, storage, mailbox_name, keeper, fit)
    keeper.close()
    return _best(spec, storage, keeper.record, collect or _collect)


def _run(spec: JobSpec, storage: str, mailbox: str, keeper: Keeper, fit: Fit | None) -> None:
    from workers.distributed.train import TRAIN_ENVIRONMENT, worker_resources  # noqa: PLC0415 - as below

    os.environ.update(TUNE_ENVIRONMENT)
    for name, value in TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray  # noqa: PLC0415 - seconds to import, and tests of the rest need none of it
    from ray import tune  # noqa: PLC0415 - likewise
    from ray.tune import logger  # noqa: PLC0415 - likewise

    from workers.sweep.trial import Assignment, SweepTrial  # noqa: PLC0415 - likewise
    from workers.sweep.tune import TargetReached, Watch, scheduler_of  # noqa: PLC0415 - likewise

    cluster: Any = ray
    results: Any = logger.JsonLoggerCallback
    trials, workers = at_once(spec, worker_resources(spec), cluster.cluster_resources())
    each = spec.resources.model_copy(update={"workers": workers})
    record = keeper.record
    shared = Assignment(
        spec=spec.model_copy(update={"resources": each}).model_dump_json(),
        storage=storage,
        mailbox=mailbox,
        metric=spec.stop.metric,
        parameters={t.number: dict(t.parameters) for t in record.trials},
        rungs={e.trial.number: dict(e.rungs) for e in record.entries if e.rungs},
        fit=fit,
    )
    log.info("sweep: %d trials, %d at once", len(record.open()), trials)
    # On this node, so that a lost one costs a trial its workers and no more. A share of the
    # node's own mark: Tune wants something reserved, and every core is for the workers.
    here = {f"node:{cluster.util.get_node_ip_address()}": 0.001}
    run: Any = tune.with_resources(
        tune.with_parameters(SweepTrial, shared=shared), tune.PlacementGroupFactory([here])
    )
    with _scratch(storage) as folder:
        tune.Tuner(
            run,
            param_space={CONFIG: tune.grid_search(list(record.open()))},
            tune_config=tune.TuneConfig(
                scheduler=scheduler_of(spec, record),
                max_concurrent_trials=trials,
                reuse_actors=False,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=folder,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                # The training's own are all there are.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                stop=TargetReached(spec.stop.target),
                # Without any file of results Tune warns at the end.
                callbacks=[Watch(keeper, lambda trial: _down(mailbox, trial), _free), results()],
                verbose=0,
            ),
        ).fit()


@contextmanager
def _scratch(storage: str) -> Iterator[str]:
    """A folder for Tune's own files; in the job's where that is local: a kill leaves it."""
    local = None if "://" in storage else Path(storage)
    for left in local.glob(f"{SCRATCH}*") if local else ():
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=local, ignore_cleanup_errors=True) as name:
        yield name


def _down(mailbox: str, trial: int) -> None:
    """Say that a trial's workers are gone: where Tune ended it, its controller cannot."""
    from workers.distributed.mailbox import GROUP, Mailbox  # noqa: PLC0415 - with Ray

    gone = {"event": "down", "trial": trial, "workers": 0, "cpus": 0.0, "gpus": 0.0, "detail": ""}
    Mailbox(mailbox).send(GROUP, gone)


def _free(group: str) -> None:
    """Remove a placement group, if it is still there."""
    from ray._raylet import PlacementGroupID  # noqa: PLC0415 - with Ray; no public name
    from ray.util.placement_group import (  # noqa: PLC0415 - with Ray
        PlacementGroup,
        remove_placement_group,
    )

    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))


def _best(spec: JobSpec, storage: str, record: Record, collect: Collect) -> Best:
    for trial in records.ranking(record):
        parameters = dict(trial.parameters)
        own = apply(spec, parameters)
        try:
            fitted = collect(own, storage_of(storage, trial.number))
        except JobFailed as failure:
            # One that was stopped may have had no time for a checkpoint.
            log.warning("trial %d is passed over: %s", trial.number, failure.detail)
            continue
        log.info("sweep: trial %d is the best, %s", trial.number, parameters)
        return Best(own, fitted, record.trials, parameters)
    for entry in record.entries:
        if entry.cause is not None:
            number, detail = entry.trial.number, entry.trial.detail
            told = f"all trials failed; trial {number}: {detail}"
            raise JobFailed(entry.cause, told)
    raise JobFailed(JobCause.INTERNAL, "no trial left a checkpoint")


def _collect(spec: JobSpec, storage: str) -> Fitted:
    from workers.distributed.train import collect  # noqa: PLC0415 - see _run

    return collect(spec, storage)
