"""One job's driver process: profile, train, export, optimize, package, upload, register.

Started by the agent through the Ray Jobs API. What it is to do it reads from the API; what
it has to say goes there through the reporter. Several of its threads may find that the job
is over (the watchdog, the wait for resources, the data's profile): the first one ends it.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from schemas.errors import Exit
from schemas.job import JobCause, JobState
from schemas.jobfile import JobSpec
from workers.blame import blame
from workers.client import PATIENCE, Api
from workers.distributed.logs import Capture
from workers.driver.ending import Ending, leave, stderr
from workers.driver.making import mailbox_of, make, of_base, of_training, take_in, trains_again
from workers.driver.places import local, package_folder, timed
from workers.driver.profiling import Profiling
from workers.driver.reporter import Final, Reporter
from workers.errors import JobFailed, WorkerError
from workers.order import Order, read_order
from workers.settings import Connection

if TYPE_CHECKING:
    from workers.sweep.search import Best

log = logging.getLogger("workers.driver")


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
        stderr().write("".join(traceback.format_exception(error)))
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
    log.info("attempt %d of job %s: %s", job.attempt, job.id, _what(spec))
    if spec.batch is not None:
        return _infer(order, api, reporter, ending)
    if spec.onnx is not None:
        return take_in(order, api, reporter, ending)
    if spec.optimize.formats:
        from workers.optimization.exporting.formats import require_formats  # noqa: PLC0415 - torch

        require_formats(spec.optimize.formats)
    profiling = Profiling(spec, local(order.job_dir), reporter.profile, ending.cut)
    with ExitStack() as stack:
        if spec.base is None:
            with timed("training"):
                best = _train(order, reporter, ending, profiling, stack)
            source = of_training(order, best.spec, best.fitted, best.parameters)
        else:
            if trains_again(spec):
                stack.enter_context(_connected(order, reporter, ending))
            profiling.start()
            source = of_base(order, api)
        if not trains_again(source.spec):
            stack.close()  # what follows needs this process alone
        return make(order, api, reporter, ending, source, profiling, mailbox_of(order))


def _what(spec: JobSpec) -> str:
    if spec.batch is not None:
        return f"inference by {spec.batch.model}"
    if spec.onnx is not None:
        return f"import of {spec.onnx.name}"
    return f"{spec.task}, from {spec.base}" if spec.base is not None else str(spec.task)


def _train(
    order: Order, reporter: Reporter, ending: Ending, profiling: Profiling, stack: ExitStack
) -> Best:
    """Train, connected to the cluster until the stack closes."""
    from workers.distributed.train import fit  # noqa: PLC0415 - likewise
    from workers.sweep.search import Best, search  # noqa: PLC0415 - with Ray

    spec = order.job.spec
    mailbox = stack.enter_context(_connected(order, reporter, ending))
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


def _infer(order: Order, api: Api, reporter: Reporter, ending: Ending) -> Final:
    """Batch inference: it leaves files, and no version."""
    from workers.batch.score_all import fetch_model, run_batch  # noqa: PLC0415 - numpy and more

    job = order.job
    if job.manifest is None or job.spec.batch is None:
        detail = "the orchestrator sent no manifest for this batch inference"
        raise JobFailed(JobCause.INTERNAL, detail)
    with package_folder(order.job_dir, job.attempt) as folder:
        fetcher: Any = api  # it also tells the size, for which nobody asks
        model = fetch_model(fetcher, job.manifest, job.spec.batch.variant, folder)
        with timed("inference"), _connected(order, reporter, ending) as mailbox:
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
    postbox = Postbox(mailbox_of(order))
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


def _cut(reason: str) -> NoReturn:
    """End at once, from the reporting thread; Ray ends the workers of a dead driver."""
    stderr().write(f"ending: {reason}\n")
    leave(Exit.INTERRUPTED)


if __name__ == "__main__":
    leave(main())
