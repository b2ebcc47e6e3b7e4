"""The whole pipeline in one process: for trying a task before submitting it."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
import yaml
from pydantic import ValidationError

from schemas.job import JobCause, JobState
from schemas.jobfile import JobSpec
from workers.errors import JobFailed, UsageError
from workers.local import LocalEngine
from workers.loop import Metrics
from workers.loop import run as train
from workers.package import Package
from workers.pipeline import build, training_of
from workers.stop import target_missed
from workers.task import load_task

log = logging.getLogger(__name__)

MAX_JOB_FILE = 1024 * 1024


def read_job(path: Path) -> JobSpec:
    """Read a job file.

    Raises:
        UsageError: it cannot be read, or says something that no job file says.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_JOB_FILE)
        return JobSpec.model_validate(yaml.safe_load(text))
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UsageError(msg, "check the path") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where is not None else ""
        msg = f"{path}{line}: not YAML"
        raise UsageError(msg, "check its indentation") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        msg = f"{path}: {field}: {first['msg']}"
        raise UsageError(msg, "see docs/architecture.md for the fields of a job") from error


def run(job: Path, out: Path) -> Package:
    """Train, export, optimize and package into ``out``.

    Raises:
        UsageError: the job file or the task is wrong, or ``out`` is not empty.
        JobFailed: the job failed, as it would on a cluster.
    """
    spec = read_job(job)
    if out.exists() and any(out.iterdir()):
        msg = f"{out} is not empty"
        raise UsageError(msg, "name a new folder")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(max(1, int(spec.resources.cpus_per_worker)))
    task = load_task(spec.entrypoint, spec.config, spec.seed)
    engine = LocalEngine(spec.stop.metric, _tell)
    trained = train(task, spec, engine)
    if target_missed(trained.history, spec.stop):
        detail = f"{spec.stop.metric} reached {trained.history.best:.4f}, below {spec.stop.target}"
        raise JobFailed(JobCause.TARGET_MISSED, detail)
    training = training_of(engine.best or b"", trained.history.epochs)
    return build(task, spec, training, out, enter=_enter)


def _tell(metrics: Metrics) -> None:
    values = " ".join(f"{k}={v:.4g}" for k, v in sorted(metrics.items()) if k != "epoch")
    log.info("epoch %d: %s", int(metrics["epoch"]), values)


def _enter(state: JobState) -> None:
    log.info("%s", state)
