"""Data-parallel training on a Ray cluster: Ray Train's ``TorchTrainer`` around the loop.

Metrics reach the driver through a spool file: Ray Train runs its controller on the
driver's node, and the controller sees each report as soon as all workers made it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.job import JobCause
from schemas.jobfile import JobSpec
from workers.blame import blame, is_broken_link, job_failure
from workers.errors import JobFailed

CHECKPOINT = "checkpoint.pt"
RUN_NAME = "train"
KEPT = 1
"""Checkpoints that stay: the best. Ray Train keeps the last besides, to resume from."""

WORKER_FAILURES = 3
"""Deaths of workers or nodes that Ray Train recovers from within one attempt."""

TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    # The controller takes one report per poll: at the default of 2 s, short epochs queue up.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    # A process each; neither is needed on machines that are not taken back.
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""Set in a driver unless its user set something else."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The best checkpoint (see ``loop.unpack``) and the epochs of all attempts."""

    checkpoint: bytes
    epochs: int
    best: float


def fit(spec: JobSpec, storage: str, spool: Path) -> Fitted:
    """Train on the cluster that ``ray.init`` finds, resuming what ``storage`` holds.

    Args:
        spec: the job.
        storage: a folder, or a URL, that every node sees; the same for each attempt.
        spool: where the metrics go, on this node.

    Raises:
        JobFailed: with the cause.
    """
    import ray  # noqa: PLC0415 - a second to import, and tests of the rest need none of it
    from ray.train.torch import TorchTrainer  # noqa: PLC0415

    for name, value in TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    cluster: Any = ray
    _check_room(spec, cluster.cluster_resources())
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"spec": spec.model_dump_json()},
        **_settings(spec, storage, spool),
    )
    try:
        result = trainer.fit()
    except Exception as error:
        raise failure_of(error) from error
    return _fitted(spec, result)


def _settings(spec: JobSpec, storage: str, spool: Path) -> dict[str, Any]:
    from ray import train as ray_train  # noqa: PLC0415 - see fit

    from workers.ray_callbacks import SpoolCallback  # noqa: PLC0415

    # Typed as Any: its static types are those of Train v1, which v2 replaces on import.
    train: Any = ray_train
    return {
        "scaling_config": train.ScalingConfig(
            num_workers=spec.resources.workers.max,
            use_gpu=spec.resources.gpus_per_worker > 0,
            resources_per_worker=worker_resources(spec),
        ),
        "run_config": train.RunConfig(
            name=RUN_NAME,
            storage_path=storage,
            failure_config=train.FailureConfig(
                max_failures=WORKER_FAILURES, controller_failure_limit=1
            ),
            checkpoint_config=train.CheckpointConfig(
                num_to_keep=KEPT, checkpoint_score_attribute=spec.stop.metric
            ),
            callbacks=[SpoolCallback(str(spool))],
        ),
    }


def worker_resources(spec: JobSpec) -> dict[str, float]:
    """What one worker reserves."""
    found: dict[str, float] = {"CPU": spec.resources.cpus_per_worker}
    if spec.resources.gpus_per_worker:
        found["GPU"] = float(spec.resources.gpus_per_worker)
    return found


def _check_room(spec: JobSpec, cluster: Mapping[str, float]) -> None:
    """Fail at once where Ray would wait for resources that never come."""
    for name, each in worker_resources(spec).items():
        wanted = each * spec.resources.workers.min
        if wanted > cluster.get(name, 0.0):
            detail = (
                f"the job wants {wanted:g} {name}, the cluster has {cluster.get(name, 0.0):g}; "
                "lower resources.workers or add nodes"
            )
            raise JobFailed(JobCause.USER_CODE, detail)


def train_worker(config: Mapping[str, Any]) -> None:
    """What each of Ray Train's workers runs."""
    import torch  # noqa: PLC0415 - see fit

    from workers.loop import run  # noqa: PLC0415
    from workers.task import load_task  # noqa: PLC0415

    spec = JobSpec.model_validate_json(config["spec"])
    # Where cores are few, a second thread doubles the CPU time and gains nothing.
    torch.set_num_threads(max(1, int(spec.resources.cpus_per_worker)))
    try:
        task = load_task(spec.entrypoint, spec.config, spec.seed)
        run(task, spec, RayEngine())
    except Exception as error:
        if is_broken_link(error):
            raise  # another worker is gone: Ray Train starts the group again
        raise blame(error) from None


class RayEngine:
    """The loop's surroundings on a Ray Train worker."""

    def __init__(self) -> None:
        import ray.train  # noqa: PLC0415 - see fit
        from ray.train.torch import get_device  # noqa: PLC0415

        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device = get_device()

    def restore(self) -> bytes | None:
        """The last checkpoint of this run, of whatever attempt."""
        import ray.train  # noqa: PLC0415 - see fit

        found = ray.train.get_checkpoint()
        if found is None:
            return None
        with found.as_directory() as folder:
            return (Path(folder) / CHECKPOINT).read_bytes()

    def report(self, metrics: Mapping[str, float], checkpoint: bytes) -> None:
        """Report an epoch; the first worker's checkpoint is kept."""
        import ray.train  # noqa: PLC0415 - see fit

        if self.rank != 0:
            ray.train.report(dict(metrics))
            return
        # Ray Train has put this process into a folder of the cluster's own.
        with tempfile.TemporaryDirectory(prefix="checkpoint-", dir=Path.cwd()) as folder:
            (Path(folder) / CHECKPOINT).write_bytes(checkpoint)
            ray.train.report(dict(metrics), checkpoint=ray.train.Checkpoint.from_directory(folder))


def failure_of(error: BaseException) -> JobFailed:
    """Why training failed, from what Ray Train raised."""
    found = job_failure(error)
    if found is not None:
        return found
    text = str(error).strip()
    last = text.splitlines()[-1][:2000] if text else type(error).__name__
    if any(word in text for word in ("OutOfMemoryError", "OutOfMemory", "memory pressure")):
        return JobFailed(JobCause.OUT_OF_MEMORY, f"a worker ran out of memory: {last}")
    return JobFailed(JobCause.INTERNAL, f"training failed: {last}")


def _fitted(spec: JobSpec, result: Any) -> Fitted:
    from workers.loop import unpack  # noqa: PLC0415 - see fit

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
