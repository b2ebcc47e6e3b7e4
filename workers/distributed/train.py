"""Data-parallel training on a Ray cluster: Ray Train around the loop."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.job import JobCause
from schemas.jobfile import JobSpec
from workers.blame import job_failure
from workers.distributed.ray_engine import CHECKPOINT
from workers.distributed.reservations import release, run_of, share
from workers.errors import JobFailed
from workers.memory import GIB, HOST_ADVICE, killed_by_ray
from workers.order import MARK

RUN_NAME = "train"
KEPT = 1
"""Checkpoints that stay: the best. Ray Train keeps the last besides, to resume from."""

WORKER_FAILURES = 3
"""Deaths of workers or nodes that Ray Train recovers from within one attempt."""

RESIZE_SECONDS = 30.0
"""Between two looks whether a job of an elastic size can have more workers."""

TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    # To begin with; ``polling`` says more.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    # A process each; neither is needed on machines that are not taken back.
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # What workers print and log goes to the API (see ``logs``), not into files of Ray's.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    # The working directory of every process is the user's folder.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
"""Set in a driver unless its user set something else."""


PLACE_SECONDS, PLACE_SECONDS_ELASTIC = "30", "8"
"""After which a worker group that is not placed is asked for anew. An elastic one is then of
the size that is there: when a node is lost, Ray Train first asks for the size it was."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The best checkpoint (see ``checkpoint.unpack``) and the epochs of all attempts."""

    checkpoint: bytes
    epochs: int
    best: float


def fit(spec: JobSpec, storage: str, mailbox_name: str, *, trial: int = 0) -> Fitted:
    """Train on the cluster that is connected, resuming what ``storage`` holds.

    It waits for resources for as long as they take; the driver bounds that.

    Args:
        spec: the job.
        storage: a folder, or a URL, that every node sees; the same for each attempt.
        mailbox_name: where epochs and the like go.
        trial: of a sweep, from 1.

    Raises:
        JobFailed: with the cause; driver_died where the cluster is at fault.
    """
    if (done := _finished(spec, storage)) is not None:
        return done
    place = PLACE_SECONDS_ELASTIC if spec.resources.workers.elastic else PLACE_SECONDS
    known = {**TRAIN_ENVIRONMENT, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": place}
    for name, value in known.items():
        os.environ.setdefault(name, value)
    from workers.distributed.ray_backend import Trainer  # noqa: PLC0415 - a second to import
    from workers.distributed.ray_worker import train_worker  # noqa: PLC0415 - likewise

    config = {"spec": spec.model_dump_json(), "mailbox": mailbox_name, "trial": trial}
    mark = os.environ.get(MARK, f"alone-{uuid.uuid4().hex}")
    share()
    release(mark, trial)
    trainer = Trainer(
        train_worker,
        run=run_of(mark, trial),
        train_loop_config=config,
        **_settings(spec, storage, mailbox_name, trial),
    )
    try:
        result = trainer.fit()
    except Exception as error:
        raise failure_of(error) from error
    return _fitted(spec, result)


def collect(spec: JobSpec, storage: str) -> Fitted:
    """What training left in ``storage`` so far.

    Raises:
        JobFailed: there is no checkpoint yet, or it cannot be read.
    """
    from ray.train import Result  # noqa: PLC0415 - see fit

    try:
        result = Result.from_path(f"{storage.rstrip('/')}/{RUN_NAME}")
    except (RuntimeError, OSError) as error:
        detail = f"there is no checkpoint in {storage}: {str(error).splitlines()[0]}"
        raise JobFailed(JobCause.INTERNAL, detail) from error
    return _fitted(spec, result)


def _finished(spec: JobSpec, storage: str) -> Fitted | None:
    """What an earlier attempt trained to its end, if it did: then nothing is to be started."""
    if "://" not in storage and not Path(storage, RUN_NAME).exists():
        return None
    from ray.train import Result  # noqa: PLC0415 - see fit

    from workers.training.checkpoint import unpack  # noqa: PLC0415 - torch
    from workers.training.stop import Verdict, history_of, judge  # noqa: PLC0415 - with it

    try:
        result = Result.from_path(f"{storage.rstrip('/')}/{RUN_NAME}")
        if result.checkpoint is None:
            return None
        history = history_of(unpack(_bytes_of(result.checkpoint))["history"])
        if judge(history, spec.stop) in {Verdict.CONTINUE, Verdict.DIVERGED}:
            return None
        return _fitted(spec, result)
    except Exception:  # noqa: BLE001 - then it is for the training to say what is wrong
        return None


def _settings(spec: JobSpec, storage: str, mailbox: str, trial: int) -> dict[str, Any]:
    from ray import train as ray_train  # noqa: PLC0415 - see fit

    from workers.distributed.ray_backend import GangConfig  # noqa: PLC0415 - likewise
    from workers.distributed.ray_callbacks import Relay  # noqa: PLC0415 - likewise

    # Typed as Any: its static types are those of Train v1, which v2 replaces on import.
    train: Any = ray_train
    workers, hang = spec.resources.workers, spec.training.hang_minutes * 60
    gpu = spec.resources.gpus_per_worker > 0
    return {
        "backend_config": GangConfig(
            backend="nccl" if gpu else "gloo",
            # Above the watchdog's: it knows where a worker stands, a collective does not.
            timeout_s=hang * 1.2 + 60,
        ),
        "scaling_config": train.ScalingConfig(
            num_workers=(workers.min, workers.max) if workers.elastic else workers.max,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
            use_gpu=gpu,
            resources_per_worker=worker_resources(spec),
        ),
        "run_config": train.RunConfig(
            name=RUN_NAME,
            storage_path=storage,
            failure_config=train.FailureConfig(
                max_failures=WORKER_FAILURES,
                # Of starts: Relay bounds those that fail, and those that wait go on.
                controller_failure_limit=-1,
            ),
            checkpoint_config=train.CheckpointConfig(
                num_to_keep=KEPT, checkpoint_score_attribute=spec.stop.metric
            ),
            callbacks=[Relay(mailbox, trial, hang)],
        ),
    }


def worker_resources(spec: JobSpec) -> dict[str, float]:
    """What one worker reserves, as Ray names it; memory in bytes."""
    found: dict[str, float] = {"CPU": spec.resources.cpus_per_worker}
    if spec.resources.gpus_per_worker:
        found["GPU"] = float(spec.resources.gpus_per_worker)
    if spec.resources.memory_gb is not None:
        found["memory"] = spec.resources.memory_gb * GIB
    return found


def failure_of(error: BaseException) -> JobFailed:
    """Why training failed, from what Ray Train raised.

    What the job itself did not cause is the cluster's: another attempt may fare better.
    """
    found = job_failure(error)
    if found is not None:
        return found
    lines = str(error).strip().splitlines()
    last = lines[-1].strip()[:2000] if lines else type(error).__name__
    cause = getattr(error, "controller_failure", error)
    if killed_by_ray(str(error)):
        detail = f"a worker ran out of memory: {last}; {HOST_ADVICE}"
        return JobFailed(JobCause.OUT_OF_MEMORY, detail)
    if type(cause).__name__ == "InsufficientClusterResourcesError":
        return JobFailed(JobCause.RESOURCES, " ".join(lines)[:2000])
    if type(error).__name__ == "WorkerGroupError":
        detail = (
            f"workers died {WORKER_FAILURES + 1} times without a word (killed from outside, "
            f"or a crash in native code): {last}"
        )
        return JobFailed(JobCause.DRIVER_DIED, detail)
    return JobFailed(JobCause.DRIVER_DIED, f"training failed: {last}")


def _fitted(spec: JobSpec, result: Any) -> Fitted:
    from workers.training.checkpoint import unpack  # noqa: PLC0415 - see fit

    metric = spec.stop.metric
    kept = [(c, m) for c, m in (result.best_checkpoints or []) if metric in m]
    if not kept or result.checkpoint is None:
        raise JobFailed(JobCause.INTERNAL, "training ended without a checkpoint")
    best, metrics = max(kept, key=lambda pair: float(pair[1][metric]))
    last = unpack(_bytes_of(result.checkpoint))["history"]
    return Fitted(_bytes_of(best), int(last["epochs"]), float(metrics[metric]))


def _bytes_of(checkpoint: Any) -> bytes:
    with checkpoint.as_directory() as folder:
        return (Path(folder) / CHECKPOINT).read_bytes()
