"""The whole pipeline in one process: for trying a task before submitting it.

Everything runs on the main thread and nothing catches signals, so that a debugger works
and Ctrl-C ends it. Neither Ray nor a server is needed, nothing is resumed.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError

from schemas.job import JobCause, JobState
from schemas.jobfile import JobSpec
from schemas.yamltext import Loader
from workers.errors import JobFailed, UsageError
from workers.inspection.dataset import profile_splits
from workers.optimization.exporting.formats import require_formats
from workers.optimization.packing.package import Package
from workers.optimization.pipeline import build, training_of
from workers.task import Task, load_task
from workers.training.local import LocalEngine
from workers.training.loop import Metrics, Trained
from workers.training.loop import run as train
from workers.training.steps import Step
from workers.training.stop import target_missed

log = logging.getLogger(__name__)

MAX_JOB_FILE = 1024 * 1024
SECONDS_BETWEEN_LINES = 10.0


def read_job(path: Path) -> JobSpec:
    """Read a job file, but for its code folder: see ``code_folder``.

    Raises:
        UsageError: it cannot be read, or says something that no job file says.
    """
    found = _mapping(path)
    if isinstance(found, dict) and isinstance(found.get("code"), str):
        found = {key: value for key, value in found.items() if key != "code"}
    try:
        return JobSpec.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        msg = f"{path}: {field}: {first['msg']}"
        raise UsageError(msg, "see docs/training.md for the fields of a job") from error


def code_folder(path: Path) -> Path:
    """Where the code of a job file is: the folder it names, else its own.

    Raises:
        UsageError: the file cannot be read, or names no folder.
    """
    found = _mapping(path)
    named = found.get("code") if isinstance(found, dict) else None
    folder = path.parent / named if isinstance(named, str) else path.parent
    if not folder.is_dir():
        msg = f"{path}: code: there is no folder {folder}"
        raise UsageError(msg, "name it relative to the job file")
    return folder.resolve()


def _mapping(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_JOB_FILE + 1)
        if len(text) > MAX_JOB_FILE:
            msg = f"{path} has more than {MAX_JOB_FILE} bytes"
            raise UsageError(msg, "put data into files of its own")
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UsageError(msg, "check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where is not None else ""
        msg = f"{path}{line}: not YAML"
        raise UsageError(msg, "check its indentation") from error


def run(job: Path, out: Path) -> Package:
    """Train, export, optimize and package into ``out``.

    The code folder becomes the working directory meanwhile, as it is on a cluster.

    Raises:
        UsageError: the job file or the task is wrong, or ``out`` is not empty.
        JobFailed: the job failed, as it would on a cluster.
    """
    spec = _alone(read_job(job))
    folder, out = code_folder(job), out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out} is not empty"
        raise UsageError(msg, "name a new folder")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(max(1, int(spec.resources.cpus_per_worker)))
    with _within(folder):
        path = spec.dataset.path
        task = load_task(spec.entrypoint, spec.config, spec.seed, path)
        profile = profile_splits(task, task.splits(), spec.dataset)
        for problem in profile.problems:
            log.warning("data: %s", problem)
        engine = LocalEngine(spec.stop.metric, _tell, on_step=_Lines(), device=_device(spec))
        trained = _trained(task, spec, engine)
        training = training_of(engine.best or b"", trained.history.epochs)
        with _whole(out) as unfinished:
            made = build(task, spec, training, unfinished, enter=_enter, profile=profile)
    return Package(out, made.manifest)


def _alone(spec: JobSpec) -> JobSpec:
    """The job as one process runs it; what that leaves out is said."""
    if spec.task is None:
        what = "batch inference" if spec.batch is not None else "the import of a model"
        msg = f"{what} needs the cluster and the model's registry"
        raise UsageError(msg, "submit it")
    if spec.base is not None:
        msg = f"base: the weights of {spec.base} are in the registry"
        raise UsageError(msg, "submit it, or leave base out to train here")
    require_formats(spec.optimize.formats)
    if spec.sweep is not None:
        log.warning("the sweep is left out: one training with the values under config")
    if spec.resources.workers.max > 1:
        log.warning(
            "one worker instead of %s: batches are as large as theirs together",
            spec.resources.workers,
        )
    training = spec.training.model_copy(update={"loader_workers": 0})
    return spec.model_copy(update={"sweep": None, "training": training})


def _device(spec: JobSpec) -> torch.device:
    if not spec.resources.gpus_per_worker:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        log.warning("there is no GPU that torch can use here: on the CPU instead")
        return torch.device("cpu")
    return torch.device("cuda")


def _trained(task: Task, spec: JobSpec, engine: LocalEngine) -> Trained:
    trained = train(task, spec, engine)
    log.info("training ended: %s, after %d epochs", trained.verdict, trained.history.epochs)
    if target_missed(trained.history, spec.stop):
        detail = f"{spec.stop.metric} reached {trained.history.best:.4f}, below {spec.stop.target}"
        raise JobFailed(JobCause.TARGET_MISSED, detail)
    return trained


@contextmanager
def _within(folder: Path) -> Iterator[None]:
    """The folder as the working directory, and first where modules are looked for."""
    before = Path.cwd()
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that becomes it at the end, or goes."""
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        msg = f"cannot make {unfinished}: {error.strerror}"
        raise UsageError(msg, "name another folder") from error
    try:
        yield unfinished
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _tell(metrics: Metrics) -> None:
    values = " ".join(f"{k}={v:.4g}" for k, v in sorted(metrics.items()) if k != "epoch")
    log.info("epoch %d: %s", int(metrics["epoch"]), values)


def _enter(state: JobState) -> None:
    log.info("%s", state)


class _Lines:
    """Prints a step now and then, where an epoch takes long."""

    def __init__(self) -> None:
        self._next = time.monotonic() + SECONDS_BETWEEN_LINES

    def __call__(self, step: Step) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS_BETWEEN_LINES
        rate = f", {step.samples_per_s:.0f} samples/s" if step.samples_per_s else ""
        loss = f", loss {step.loss:.4g}" if step.loss is not None else ""
        log.info("epoch %d: batch %d of %d%s%s", step.epoch, step.done, step.total, loss, rate)
