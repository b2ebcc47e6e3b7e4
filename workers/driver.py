"""One job's driver process: train, export, optimize, package, upload, register.

Started by the agent through the Ray Jobs API. What it must know comes in environment
variables; what it has to say goes to the API through the reporter.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from schemas.errors import Exit
from schemas.job import JobCause, JobClaim, JobState, MetricPoint
from schemas.jobfile import JobSpec
from schemas.model import VersionNumber
from workers.blame import blame
from workers.client import PATIENCE, Api
from workers.errors import JobFailed, UsageError, WorkerError
from workers.reporter import Final, Reporter, ReportingHandler
from workers.settings import Connection
from workers.spool import Spool

if TYPE_CHECKING:
    from workers.train import Fitted

log = logging.getLogger("workers.driver")

CLAIM = "ARGOSY_CLAIM"
URL = "ARGOSY_URL"
CA = "ARGOSY_CA"
JOB_DIR = "ARGOSY_JOB_DIR"
MARK = "ARGOSY_JOB"
"""``<job>-<attempt>``, in the environment of every process of a job: how they are found."""

SAID_FAILED = Exit.GATE_FAILED
"""The exit code of a driver that failed and was heard saying so."""

SPOOL_PERIOD = 0.1


@dataclass(frozen=True, slots=True)
class Order:
    """What a driver is started with. job_dir: a folder or a URL that every node sees."""

    claim: JobClaim
    connection: Connection
    job_dir: str


def order_environment(claim: JobClaim, connection: Connection, job_dir: str) -> dict[str, str]:
    """The variables that ``read_order`` reads. connection: its token is not passed on."""
    found = {
        CLAIM: claim.model_dump_json(),
        URL: connection.url,
        JOB_DIR: job_dir,
        MARK: f"{claim.id}-{claim.attempt}",
    }
    return {**found, CA: connection.ca} if connection.ca else found


def read_order(env: Mapping[str, str]) -> Order:
    """What this driver is to do.

    Raises:
        UsageError: a variable is missing or not what it should be.
    """
    try:
        claim = JobClaim.model_validate_json(env[CLAIM])
        connection = Connection(url=env[URL], token=claim.job_token, ca=env.get(CA))
        return Order(claim, connection, env[JOB_DIR])
    except (KeyError, ValidationError) as error:
        msg = f"a driver is started by the agent, with {CLAIM}, {URL} and {JOB_DIR}: {error}"
        raise UsageError(msg, "run `argosy-worker agent`, or `argosy-worker run-local`") from error


def main() -> int:
    """Run the job; the exit code says whether its end was reported (see SAID_FAILED)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        order = read_order(os.environ)
        api = Api(order.connection, patience=PATIENCE)
    except WorkerError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    reporter = Reporter(api, order.claim.id, order.claim.attempt, order.claim.lease_seconds, _end)
    reporter.start()
    handler = ReportingHandler(reporter)
    handler.addFilter(_worth_telling)
    logging.getLogger().addHandler(handler)
    final = _last_word(order, api, reporter)
    if final is None or not reporter.finish(final):
        return Exit.FAILED
    return Exit.OK if final.state is JobState.SUCCEEDED else SAID_FAILED


def _last_word(order: Order, api: Api, reporter: Reporter) -> Final | None:
    """How the job ended; None when the machinery failed, not the job.

    A FAILED would be the job's end. Without it the agent reports a dead driver, and the
    next attempt goes on from the last checkpoint.
    """
    try:
        made = run_job(order, api, reporter)
    except Exception as error:  # noqa: BLE001 - whatever it is, the job ends by it
        failure = blame(error)
        # The traceback goes to the driver's own log, which Ray keeps, not to the API.
        sys.stderr.write("".join(_traceback(error)))
        # The last line of that log is what the agent quotes.
        log.error("failed (%s): %s", failure.cause, failure.detail)  # noqa: TRY400 - see above
        if failure.cause is JobCause.DRIVER_DIED:
            return None
        return Final(JobState.FAILED, cause=failure.cause, detail=failure.detail)
    log.info("registered %s version %d", made.model, made.version)
    return Final(JobState.SUCCEEDED, model=made.model, version=made.version)


def run_job(order: Order, api: Api, reporter: Reporter) -> VersionNumber:
    """The whole job, from the checkpoints of earlier attempts on."""
    claim, spec = order.claim, order.claim.spec
    log.info("attempt %d of job %s: %s", claim.attempt, claim.id, spec.task)
    with _timed("training"):
        fitted = _train(order, reporter)
    from workers.pipeline import build, training_of  # noqa: PLC0415 - torch, after Ray has begun
    from workers.task import load_task  # noqa: PLC0415

    task = load_task(spec.entrypoint, spec.config, spec.seed)
    training = training_of(fitted.checkpoint, fitted.epochs, job=claim.id, attempt=claim.attempt)
    with _folder(order.job_dir, claim.attempt) as folder:
        with _timed("export and optimization"):
            package = build(task, spec, training, folder, enter=reporter.enter)
        reporter.enter(JobState.REGISTERING)
        for sha256, path in package.files():
            api.upload(sha256, path)
        return api.register(package.manifest)


def _train(order: Order, reporter: Reporter) -> Fitted:
    import ray  # noqa: PLC0415 - only a driver needs it

    from workers.train import fit  # noqa: PLC0415 - likewise

    spec = order.claim.spec
    if Path(order.job_dir, "train").exists():
        log.info("checkpoints of an earlier attempt are there: going on from the last")
    ray.init(log_to_driver=False, configure_logging=False)
    # In the job's folder where that is local: a driver that is killed cannot clean up.
    around = None if "://" in order.job_dir else order.job_dir
    with tempfile.TemporaryDirectory(prefix=".spool-", dir=around) as folder:
        spool = Path(folder) / "metrics.jsonl"
        with _tail(spool, reporter):
            fitted = fit(spec, order.job_dir, spool)
    _require_target(spec, fitted.best, fitted.epochs)
    log.info("trained %d epochs, best %s %.4f", fitted.epochs, spec.stop.metric, fitted.best)
    ray.shutdown()
    return fitted


def _require_target(spec: JobSpec, best: float, epochs: int) -> None:
    target = spec.stop.target
    if spec.stop.require_target and target is not None and best < target:
        detail = (
            f"{spec.stop.metric} reached {best:.4f} in {epochs} epochs, "
            f"the target is {target:.4f}; train longer, "
            "lower stop.target, or set stop.require_target to false"
        )
        raise JobFailed(JobCause.TARGET_MISSED, detail)


@contextmanager
def _tail(path: Path, reporter: Reporter) -> Iterator[None]:
    """Pass metrics on as they appear in the spool."""
    spool = Spool(path)
    done = threading.Event()

    def follow() -> None:
        ended = False
        while not ended:
            ended = done.wait(SPOOL_PERIOD)
            for point in _points(spool):
                reporter.metrics([point])
                values = " ".join(f"{k}={v:.4g}" for k, v in sorted(point.values.items()))
                log.info("epoch %d: %s", point.epoch, values)

    thread = threading.Thread(target=follow, name="spool", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _points(spool: Spool) -> tuple[MetricPoint, ...]:
    try:
        return spool.read()
    except OSError as error:
        log.warning("the metrics cannot be read just now: %s", error)
        return ()


@contextmanager
def _folder(job_dir: str, attempt: int) -> Iterator[Path]:
    """Where to build the package: in the job's folder, or a temporary one if that is a URL.

    Each attempt has its own: an earlier one may not know yet that its lease is over.
    """
    if "://" in job_dir:
        with tempfile.TemporaryDirectory(prefix="argosy-package-") as name:
            yield Path(name)
        return
    for earlier in Path(job_dir).glob("package-*"):
        shutil.rmtree(earlier, ignore_errors=True)
    yield Path(job_dir) / f"package-{attempt}"


@contextmanager
def _timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    log.info("%s took %.1f s", what, time.monotonic() - started)


def _worth_telling(record: logging.LogRecord) -> bool:
    """Libraries report to the API from warnings on; the job and its task from info on."""
    library = record.name.split(".")[0] in {"ray", "httpx", "httpcore", "torch", "asyncio"}
    return not library or record.levelno >= logging.WARNING


def _traceback(error: BaseException) -> list[str]:
    import traceback  # noqa: PLC0415 - only on failure

    return traceback.format_exception(error)


def _end(reason: str) -> None:
    """End at once, from the reporting thread; Ray ends the workers of a dead driver."""
    sys.stderr.write(f"ending: {reason}\n")
    sys.stderr.flush()
    os._exit(Exit.INTERRUPTED)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Ray's exit hooks wait for processes that the agent ends anyway.
    os._exit(code)
