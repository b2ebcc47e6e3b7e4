"""The job file: what a person writes to have a model trained, or inputs scored."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from schemas.base import Authored, PlainText
from schemas.ids import JobId, Name
from schemas.lineage import Code, ModelRef
from schemas.optimize import OnnxSource, Optimize
from schemas.place import Place
from schemas.plain import check_plain
from schemas.sweep import Sweep
from schemas.workers import WorkerRange, Workers

RESERVED_MODULES = frozenset({"schemas", "workers", "orchestrator", "edge_client", "ray", "torch"})
"""No file or folder at the top of a code folder may be such a module: it would shadow ours."""

MAX_CONFIG_BYTES = 64 * 1024

Entrypoint = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", max_length=300)
]
"""A task class as ``module:Class``."""


class Dataset(Authored):
    """Where the data is and how it is checked before training.

    path: handed to the task as ``task.data_path``. check: what duplicates, leakage and
    other faults of the profile lead to; labels and shapes that do not fit always fail.
    max_overlap: the share of validation or test samples that may also be in the training
    split. profile_samples: per split, for the statistics of inputs.
    """

    path: Place | None = None
    check: Literal["off", "warn", "fail"] = "warn"
    max_overlap: Annotated[float, Field(ge=0, le=1)] = 0.0
    profile_samples: Annotated[int, Field(ge=100, le=1_000_000)] = 20_000


class Resources(Authored):
    """What a job asks of the cluster.

    workers: data-parallel processes, as ``2``, or ``2..8`` to go on with what there is.
    cpus_per_worker: cores each. gpus_per_worker: GPUs each (0 trains on CPUs over gloo,
    more over nccl). memory_gb: of each worker, in GiB: reserved, and its limit.
    wait_minutes: how long a claimed job waits for them before it fails.
    """

    workers: Workers = WorkerRange(min=1, max=1)
    cpus_per_worker: Annotated[float, Field(gt=0, le=256)] = 1
    gpus_per_worker: Annotated[int, Field(ge=0, le=16)] = 0
    memory_gb: Annotated[float, Field(ge=0.25, le=4096)] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    wait_minutes: Annotated[float, Field(gt=0, le=10_080)] = 60


class Schedule(Authored):
    """The learning rate over the steps of ``stop.max_epochs``, as a factor of the task's own.

    It rises linearly from 0 over ``warmup_epochs``, then follows ``kind`` down to ``floor``.
    """

    kind: Literal["constant", "linear", "cosine"] = "constant"
    warmup_epochs: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0


class Training(Authored):
    """How the loop trains.

    accumulate: batches per optimizer step. clip_norm: the largest norm of the gradients;
    null: not clipped. class_weights: ``balanced`` weighs each class by its rarity.
    loader_workers: processes that load data, per worker. compile: through
    ``torch.compile``. checkpoint_every: epochs between checkpoints (the last always is
    one). hang_minutes: without a step for that long, the job fails and says where it hung.
    """

    accumulate: Annotated[int, Field(ge=1, le=1024)] = 1
    clip_norm: Annotated[float, Field(gt=0)] | None = 5.0
    schedule: Schedule = Schedule()
    class_weights: Literal["none", "balanced"] = "none"
    loader_workers: Annotated[int, Field(ge=0, le=64)] = 0
    compile: bool = False
    checkpoint_every: Annotated[int, Field(ge=1, le=10_000)] = 1
    hang_minutes: Annotated[float, Field(gt=0, le=1440)] = 15


class StopRules(Authored):
    """When training ends.

    metric: what is judged, measured on the validation split: the accuracy (0..1), of
    which more is better. A loss cannot be judged. target: reached means good enough.
    patience: epochs without an improvement of at least ``min_delta``. overfit_gap: ends
    when the training accuracy was above the validation accuracy by more than this for
    ``overfit_epochs`` epochs in a row. max_hours: of training, over all attempts.
    require_target: fail the job if it ends below ``target``.
    """

    metric: Literal["accuracy"] = "accuracy"
    target: Annotated[float, Field(gt=0, le=1)] | None = None
    patience: Annotated[int, Field(ge=1, le=10_000)] = 10
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    overfit_gap: Annotated[float, Field(gt=0, le=1)] | None = None
    overfit_epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    max_epochs: Annotated[int, Field(ge=1, le=100_000)] = 50
    max_hours: Annotated[float, Field(gt=0, le=8760)] | None = None
    require_target: bool = True


class Promote(Authored):
    """Which alias moves to the version once it is registered.

    min_accuracy: of its first variant on the test split; below it no alias moves.
    """

    alias: Name | None = None
    min_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.0


Column = Annotated[PlainText, StringConstraints(min_length=1, max_length=200)]


class Batch(Authored):
    """Batch inference: a registered version over files, results as parquet.

    input: a file or folder of npy, npz, csv or parquet. output: a folder; what is there
    already is not inferred again. columns: of csv and parquet, in the order of the input's
    features; empty: all. variant: the version's first that the cluster runs, unless given.
    """

    model: ModelRef
    input: Place
    output: Place
    variant: Name | None = None
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 256
    columns: Annotated[tuple[Column, ...], Field(max_length=10_000)] = ()


class JobSpec(Authored):
    """A job file.

    name: the job's and, unless ``model`` is given, the model's name. task: the
    entrypoint ``module:Class``, of the code folder or a recipe that is installed. Instead
    of it: batch, or onnx. base: a registered version of this task's, whose weights are
    optimized anew; nothing is trained from the beginning. code: the folder of the user's
    code. config: passed to the task as it is. project: whose share of the cluster it counts
    to. priority: higher ones start first. seed: of the weights, the split and the
    shuffling. cloned_from: the job it was cloned from.
    """

    name: Name
    task: Entrypoint | None = None
    batch: Batch | None = None
    onnx: OnnxSource | None = None
    base: ModelRef | None = None
    code: Code | None = None
    model: Name | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    dataset: Dataset = Dataset()
    resources: Resources = Resources()
    training: Training = Training()
    stop: StopRules = StopRules()
    optimize: Optimize = Optimize()
    promote: Promote = Promote()
    sweep: Sweep | None = None
    project: Name = "default"
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    cloned_from: JobId | None = None

    @field_validator("config")
    @classmethod
    def _bounded(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_plain(value, MAX_CONFIG_BYTES)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if sum(part is not None for part in (self.task, self.batch, self.onnx)) != 1:
            msg = "either task, batch or onnx is needed, and only one of them"
            raise ValueError(msg)
        if self.base is not None and (self.task is None or self.sweep is not None):
            msg = "base needs a task, and takes no sweep"
            raise ValueError(msg)
        trains = self.task is not None and self.base is None
        if trains and self.stop.require_target and self.stop.target is None:
            msg = "stop.target is needed unless stop.require_target is false"
            raise ValueError(msg)
        if self.batch is not None and (self.sweep or self.code or self.model):
            msg = "batch inference takes no sweep, code or model"
            raise ValueError(msg)
        if self.onnx is not None and (self.sweep or self.code or self.config):
            msg = "a model made elsewhere takes no sweep, code or config"
            raise ValueError(msg)
        return self

    @property
    def entrypoint(self) -> str:
        """The task, of a job that has one."""
        if self.task is None:
            msg = "only a training has a task"
            raise ValueError(msg)
        return self.task

    @property
    def model_name(self) -> str:
        """The name under which the result is registered."""
        return self.model or self.name
