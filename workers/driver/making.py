"""From what was trained, or was there before, to a registered version."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.job import JobCause, JobState
from schemas.jobfile import JobSpec
from schemas.lineage import Choice
from workers.client import Api
from workers.driver.ending import Ending
from workers.driver.places import local, package_folder, timed
from workers.driver.profiling import Profiling, hung_here, watch_reading
from workers.driver.reporter import Final, Reporter
from workers.errors import JobFailed
from workers.order import Order

if TYPE_CHECKING:
    from workers.distributed.train import Fitted
    from workers.optimization.executor import Executor
    from workers.optimization.packing.package import Package
    from workers.optimization.pipeline import Training

log = logging.getLogger("workers.driver")

EXPORT_SECONDS = 1800.0
"""For how long an export may make no sign of progress, at least."""

TRIALS = "trials"
"""The folder, in the job's, of what optimization has tried; gone once the job has registered."""


def mailbox_of(order: Order) -> str:
    """The name of the mailbox of an attempt's processes."""
    return f"argosy-{order.job.id}-{order.job.attempt}"


def trains_again(spec: JobSpec) -> bool:
    """Whether optimization trains nets, on the cluster."""
    return bool(spec.optimize.prune or (spec.optimize.int8 and spec.optimize.qat_epochs))


@dataclass(frozen=True, slots=True)
class Source:
    """What a package is made of. spec: with what a sweep chose, which parameters name."""

    spec: JobSpec
    training: Training
    parameters: Mapping[str, Choice]


def of_training(
    order: Order, spec: JobSpec, fitted: Fitted, parameters: Mapping[str, Choice]
) -> Source:
    """What a training left. spec: as it trained, with what a sweep chose."""
    from workers.optimization.pipeline import training_of  # noqa: PLC0415 - torch, after Ray has begun

    job = order.job
    training = training_of(fitted.checkpoint, fitted.epochs, job=job.id, attempt=job.attempt)
    return Source(spec, training, parameters)


def of_base(order: Order, api: Api) -> Source:
    """The weights of the version to begin with; nothing is trained from the beginning."""
    from workers.optimization.pipeline import weights_of  # noqa: PLC0415 - torch

    job, base = order.job, order.job.manifest
    parent = str(job.spec.base)
    if base is None:
        detail = f"the orchestrator sent no manifest of {parent}"
        raise JobFailed(JobCause.INTERNAL, detail)
    if base.weights is None:
        detail = f"{parent} was registered without its weights; train it again, or import it"
        raise JobFailed(JobCause.USER_CODE, detail)
    with tempfile.TemporaryDirectory(prefix="argosy-base-") as folder:
        path = Path(folder) / base.weights.path
        api.artifact(base.weights.sha256, path)
        training = weights_of(path, base.lineage, parent=parent, job=job.id, attempt=job.attempt)
    return Source(job.spec, training, base.lineage.parameters)


def make(
    order: Order,
    api: Api,
    reporter: Reporter,
    ending: Ending,
    source: Source,
    profiling: Profiling,
    mailbox: str,
) -> Final:
    """Export, optimize, register."""
    profile = profiling.result()
    from workers.optimization.pipeline import build  # noqa: PLC0415 - torch, after Ray has begun
    from workers.task import load_task  # noqa: PLC0415 - likewise

    spec, here = source.spec, local(order.job_dir)
    with package_folder(order.job_dir, order.job.attempt) as folder:
        with timed("export and optimization"), _watched(spec, reporter, ending) as watch:
            task = load_task(spec.entrypoint, spec.config, spec.seed, spec.dataset.path)
            watch_reading(task, watch.beat)
            package = build(
                task,
                spec,
                source.training,
                folder,
                enter=watch.enter,
                executor=_executor(spec, mailbox),
                cache=None if here is None else here / TRIALS,
                profile=profile,
                parameters=source.parameters,
            )
        made = _register(package, api, reporter)
    if here is not None:
        shutil.rmtree(here / TRIALS, ignore_errors=True)
    return made


def take_in(order: Order, api: Api, reporter: Reporter, ending: Ending) -> Final:
    """A model made elsewhere: check, measure, register."""
    from workers.optimization.importing.imported import build_imported  # noqa: PLC0415 - torch and more

    job, spec = order.job, order.job.spec
    if spec.onnx is None:
        raise JobFailed(JobCause.INTERNAL, "the job has no onnx section")
    with (
        tempfile.TemporaryDirectory(prefix="argosy-import-") as scratch,
        package_folder(order.job_dir, job.attempt) as folder,
    ):
        file = Path(scratch) / "model.onnx"
        api.artifact(spec.onnx.file, file)
        with timed("import"), _watched(spec, reporter, ending) as watch:
            package = build_imported(
                spec,
                file,
                folder,
                enter=watch.enter,
                executor=_executor(spec, ""),
                job=job.id,
                attempt=job.attempt,
            )
        return _register(package, api, reporter)


def _executor(spec: JobSpec, mailbox: str) -> Executor:
    """On the cluster, where there is something to train and it is connected; else here."""
    from workers.optimization.executor import LocalExecutor  # noqa: PLC0415 - torch

    if not mailbox or not trains_again(spec):
        return LocalExecutor()
    from workers.distributed.tasks import RayExecutor  # noqa: PLC0415 - with Ray

    return RayExecutor(spec, mailbox)


def _register(package: Package, api: Api, reporter: Reporter) -> Final:
    reporter.enter(JobState.REGISTERING)
    for sha256, path in package.files():
        api.upload(sha256, path)
    made = api.register(package.manifest)
    log.info("registered %s version %d", made.model, made.version)
    return Final(JobState.SUCCEEDED, model=made.model, version=made.version)


class _Watch:
    """Signs of progress, and the states of a job that makes a package."""

    def __init__(self, beat: Callable[[], None], reporter: Reporter) -> None:
        self.beat = beat
        self._reporter = reporter

    def enter(self, state: JobState) -> None:
        """A state begins."""
        self.beat()
        self._reporter.enter(state)


@contextmanager
def _watched(spec: JobSpec, reporter: Reporter, ending: Ending) -> Iterator[_Watch]:
    """While a package is made: without a sign of progress for too long, the job fails."""
    from workers.optimization.executor import beating  # noqa: PLC0415 - torch
    from workers.training.watchdog import Watchdog  # noqa: PLC0415 - likewise

    seconds = max(EXPORT_SECONDS, spec.training.hang_minutes * 60)
    watchdog = Watchdog(seconds, 0, lambda hang: ending.cut(hung_here(hang)))
    with watchdog, beating(watchdog.beat):
        yield _Watch(watchdog.beat, reporter)
