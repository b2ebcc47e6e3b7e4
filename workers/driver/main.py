"""One job's driver process: profile, train, export, optimize, package, upload, register.

Started by the agent through the Ray Jobs API. What it is to do it reads from the API; what
it has to say goes there through the reporter. Several of its threads may find that the job
is over (the watchdog, the wait for resources, the data's profile): the first one ends it.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from schemas.errors import Exit
from schemas.job import JobCause, JobState
from workers.blame import blame
from workers.client import PATIENCE, Api
from workers.distributed.logs import Capture
from workers.driver.profiling import Profiling, hung_here, watch_reading
from workers.driver.reporter import Final, Reporter
from workers.errors import JobFailed, WorkerError
from workers.order import SAID_FAILED, Order, read_order
from workers.settings import Connection

if TYPE_CHECKING:
    from workers.sweep.search import Best

log = logging.getLogger("workers.driver")

EXPORT_SECONDS = 1800.0
"""For how long an export may make no sign of progress, at least."""


class Ending:
    """The job's last word: whoever comes first says it."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._taken = threading.Lock()

    def say(self, final: Final | None) -> int:
        """Say it; the exit code. None: nothing, so that the agent reports a dead driver."""
        if not self._taken.acquire(blocking=False):
            threading.Event().wait()  # the other one ends the process
        if final is None or not self._reporter.finish(final):
            return Exit.FAILED
        return Exit.OK if final.state is JobState.SUCCEEDED else SAID_FAILED

    def failed(self, failure: JobFailed) -> int:
        """Say a failure; the exit code."""
        # The last line of the driver's own log is what the agent quotes.
        log.error("failed (%s): %s", failure.cause, failure.detail)
        return self.say(final_of(failure))

    def cut(self, failure: JobFailed) -> NoReturn:
        """Say a failure and end the process, from a thread beside the main one."""
        leave(self.failed(failure))


def leave(code: int) -> NoReturn:
    """Exit at once: Ray's exit hooks wait for processes that the agent ends anyway."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a task may have closed or replaced it
            stream.flush()
    os._exit(code)


def final_of(failure: JobFailed) -> Final | None:
    """A failure as the job's last word; None when the machinery failed, not the job.

    A FAILED would be the job's end. Without it the agent reports a dead driver, and the
    next attempt goes on from the last checkpoint.
    """
    if failure.cause is JobCause.DRIVER_DIED:
        return None
    return Final(JobState.FAILED, cause=failure.cause, detail=failure.detail)


def main() -> int:
    """Run the job; the exit code says whether its end was reported (see SAID_FAILED)."""
    try:
        order = read_order(os.environ, _api)
        api = _api(order.connection)
    except WorkerError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    job = order.job
    reporter = Reporter(api, job.id, job.attempt, job.lease_seconds, _cut)
    reporter.start()
    capture = Capture(reporter.log)
    capture.start()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    ending = Ending(reporter)
    try:
        final = run_job(order, api, reporter, ending)
    except BaseException as error:  # noqa: BLE001 - even SystemExit: the job ends by it
        # The traceback goes to the driver's own log, which Ray keeps, not to the API.
        _stderr().write("".join(traceback.format_exception(error)))
        return ending.failed(blame(error))
    finally:
        capture.stop()
    return ending.say(final)


def _api(connection: Connection) -> Api:
    return Api(connection, patience=PATIENCE)


def run_job(order: Order, api: Api, reporter: Reporter, ending: Ending) -> Final:
    """The whole job, from what earlier attempts left on."""
    job = order.job
    spec = job.spec
    what = f"inference by {spec.batch.model}" if spec.batch is not None else spec.task
    log.info("attempt %d of job %s: %s", job.attempt, job.id, what)
    if spec.batch is not None:
        return _infer(order, api, reporter, ending)
    profiling = Profiling(spec, _local(order.job_dir), reporter.profile, ending.cut)
    with _timed("training"):
        best = _train(order, reporter, ending, profiling)
    return _make(order, api, reporter, ending, best, profiling)


def _train(order: Order, reporter: Reporter, ending: Ending, profiling: Profiling) -> Best:
    from workers.distributed.train import fit  # noqa: PLC0415 - likewise
    from workers.sweep.search import Best, search  # noqa: PLC0415 - with Ray

    spec = order.job.spec
    with _connected(order, reporter, ending) as mailbox:
        profiling.start()
        try:
            if spec.sweep is not None:
                best = search(spec, order.job_dir, mailbox, reporter.trials)
            else:
                best = Best(spec, fit(spec, order.job_dir, mailbox), (), {})
        except JobFailed:
            profiling.result()  # what is wrong with the data explains what came of it
            raise
    _require_target(best)
    epochs, metric = best.fitted.epochs, spec.stop.metric
    log.info("trained %d epochs, best %s %.4f", epochs, metric, best.fitted.best)
    return best


def _make(
    order: Order,
    api: Api,
    reporter: Reporter,
    ending: Ending,
    best: Best,
    profiling: Profiling,
) -> Final:
    """Export, optimize, register."""
    profile = profiling.result()
    from workers.optimization.pipeline import build, training_of  # noqa: PLC0415 - torch, after Ray has begun
    from workers.task import load_task  # noqa: PLC0415 - likewise
    from workers.training.watchdog import Watchdog  # noqa: PLC0415 - likewise

    job, spec, fitted = order.job, best.spec, best.fitted
    seconds = max(EXPORT_SECONDS, spec.training.hang_minutes * 60)
    watchdog = Watchdog(seconds, 0, lambda hang: ending.cut(hung_here(hang)))

    def enter(state: JobState) -> None:
        watchdog.beat()
        reporter.enter(state)

    with _folder(order.job_dir, job.attempt) as folder:
        with _timed("export and optimization"), watchdog:
            task = load_task(spec.entrypoint, spec.config, spec.seed, spec.dataset.path)
            watch_reading(task, watchdog.beat)
            training = training_of(
                fitted.checkpoint, fitted.epochs, job=job.id, attempt=job.attempt
            )
            package = build(
                task,
                spec,
                training,
                folder,
                enter=enter,
                profile=profile,
                parameters=best.parameters,
            )
        reporter.enter(JobState.REGISTERING)
        for sha256, path in package.files():
            api.upload(sha256, path)
        made = api.register(package.manifest)
    log.info("registered %s version %d", made.model, made.version)
    return Final(JobState.SUCCEEDED, model=made.model, version=made.version)


def _infer(order: Order, api: Api, reporter: Reporter, ending: Ending) -> Final:
    """Batch inference: it leaves files, and no version."""
    from workers.batch.score_all import fetch_model, run_batch  # noqa: PLC0415 - numpy and more

    job = order.job
    if job.manifest is None or job.spec.batch is None:
        detail = "the orchestrator sent no manifest for this batch inference"
        raise JobFailed(JobCause.INTERNAL, detail)
    with _folder(order.job_dir, job.attempt) as folder:
        fetcher: Any = api  # it also tells the size, for which nobody asks
        model = fetch_model(fetcher, job.manifest, job.spec.batch.variant, folder)
        with _timed("inference"), _connected(order, reporter, ending) as mailbox:
            result = run_batch(job, model, mailbox)
    log.info("%s", result)
    return Final(JobState.SUCCEEDED, detail=str(result))


@contextmanager
def _connected(order: Order, reporter: Reporter, ending: Ending) -> Iterator[str]:
    """While connected to the cluster: what its processes send reaches the reporter."""
    import ray  # noqa: PLC0415 - a second to import

    from workers.distributed.mailbox import Postbox  # noqa: PLC0415 - with it
    from workers.driver.pump import Pump  # noqa: PLC0415 - likewise
    from workers.driver.ray_cluster import RayCluster  # noqa: PLC0415 - likewise

    spec = order.job.spec
    ray.init(log_to_driver=False, configure_logging=False)
    postbox = Postbox(f"argosy-{order.job.id}-{order.job.attempt}")
    pump = Pump(spec, postbox, RayCluster(spec), reporter, ending.cut)
    pump.start()
    try:
        yield postbox.name
    finally:
        pump.stop()
        ray.shutdown()


def _require_target(best: Best) -> None:
    stop, fitted = best.spec.stop, best.fitted
    if stop.require_target and stop.target is not None and fitted.best < stop.target:
        detail = (
            f"{stop.metric} reached {fitted.best:.4f} in {fitted.epochs} epochs, "
            f"the target is {stop.target:.4f}; train longer, "
            "lower stop.target, or set stop.require_target to false"
        )
        raise JobFailed(JobCause.TARGET_MISSED, detail)


def _local(job_dir: str) -> Path | None:
    return None if "://" in job_dir else Path(job_dir)


@contextmanager
def _folder(job_dir: str, attempt: int) -> Iterator[Path]:
    """Where to build the package: in the job's folder, or a temporary one if that is a URL.

    Each attempt has its own: an earlier one may not know yet that its lease is over.
    """
    local = _local(job_dir)
    if local is None:
        with tempfile.TemporaryDirectory(prefix="argosy-package-") as name:
            yield Path(name)
        return
    for earlier in local.glob("package-*"):
        shutil.rmtree(earlier, ignore_errors=True)
    yield local / f"package-{attempt}"


@contextmanager
def _timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    log.info("%s took %.1f s", what, time.monotonic() - started)


def _stderr() -> Any:
    """This process's own: what goes there is kept by Ray, and not sent to the API."""
    return getattr(sys.stderr, "original", sys.stderr)


def _cut(reason: str) -> NoReturn:
    """End at once, from the reporting thread; Ray ends the workers of a dead driver."""
    _stderr().write(f"ending: {reason}\n")
    leave(Exit.INTERRUPTED)


if __name__ == "__main__":
    leave(main())
