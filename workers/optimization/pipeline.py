"""From trained weights to a package: export, search, measure, pack.

The same steps for a job on a cluster and for ``run-local``; who calls says where the
states go, and where nets are trained.
"""

from __future__ import annotations

import io
import logging
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from schemas.dataset import DatasetProfile
from schemas.job import JobCause, JobState
from schemas.jobfile import JobSpec
from schemas.lineage import Choice, Code
from schemas.measure import ModelFile
from schemas.model import ExportedFile, Lineage, Pass
from workers.blame import user_code
from workers.errors import JobFailed
from workers.files import describe, sha256_bytes, sha256_file, write_atomic
from workers.inspection.dataset import profile_splits
from workers.inspection.stream import Stream
from workers.optimization.cache import Cache
from workers.optimization.executor import Executor, LocalExecutor
from workers.optimization.exporting.export import Exported, export
from workers.optimization.exporting.formats import OtherFile, make
from workers.optimization.packing.package import Package, environment, required, write_package
from workers.optimization.packing.variants import passes_of, rejected_of, variants_of
from workers.optimization.searching.nets import TrainedNets
from workers.optimization.searching.search import MEASURED_SAMPLES, Data, Optimized, optimize_graph
from workers.optimization.session import Array
from workers.task import Splits, Task, source_of
from workers.training.loop import unpack

log = logging.getLogger(__name__)

PARITY_SAMPLES = 64
WEIGHTS = "weights.pt"


@dataclass(frozen=True, slots=True)
class Training:
    """What the training left: weights (a state dict) and where they came from.

    code_sha256: of the task's code as the training began; None if the checkpoint
    does not tell. parent: the version whose weights these are, as ``name@number``.
    """

    weights: Mapping[str, Any]
    weights_sha256: str
    code_sha256: str | None
    epochs: int
    job: str | None = None
    attempt: int | None = None
    parent: str | None = None

    def checkpoint(self) -> bytes:
        """The weights as a checkpoint that training can begin from, without an optimizer's
        state or a history.
        """  # noqa: D205 - one sentence
        buffer = io.BytesIO()
        weights = dict(self.weights)
        state = {"model": weights, "optimizer": {}, "history": {}, "code_sha256": self.code_sha256}
        torch.save(state, buffer)
        return buffer.getvalue()


def training_of(
    checkpoint: bytes, epochs: int, *, job: str | None = None, attempt: int | None = None
) -> Training:
    """The training that left a checkpoint.

    Raises:
        JobFailed: the checkpoint is damaged.
    """
    state = unpack(checkpoint)
    digest = sha256_bytes(checkpoint)
    return Training(state["model"], digest, state["code_sha256"], epochs, job, attempt)


def weights_of(
    path: Path, base: Lineage, *, parent: str, job: str | None, attempt: int | None
) -> Training:
    """The weights that a version was registered with, to be optimized anew.

    Args:
        path: ``weights.pt`` of its package.
        base: the version's lineage.
        parent: the version, as ``name@number``.
        job: that optimizes.
        attempt: of the job.

    Raises:
        JobFailed: the file is damaged.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(weights, dict):
            raise TypeError(type(weights))  # noqa: TRY301 - damaged either way
    except Exception as error:
        detail = f"the weights of {parent} cannot be read: {str(error).splitlines()[:1]}"
        raise JobFailed(JobCause.INTERNAL, detail) from error
    digest = sha256_file(path)
    return Training(weights, digest, base.code_sha256, base.epochs or 0, job, attempt, parent)


def build(
    task: Task,
    spec: JobSpec,
    training: Training,
    folder: Path,
    *,
    enter: Callable[[JobState], None],
    executor: Executor | None = None,
    cache: Path | None = None,
    profile: DatasetProfile | None = None,
    code: Code | None = None,
    parameters: Mapping[str, Choice] | None = None,
) -> Package:
    """Make the package of a trained task in ``folder``.

    Args:
        task: the task.
        spec: the job; the budgets of device classes are in ``optimize.classes``.
        training: its result.
        folder: an empty or absent folder.
        enter: is told EXPORTING and OPTIMIZING as they begin.
        executor: where further nets are trained; None: here.
        cache: where trials are kept, so that a later attempt repeats none; None: nowhere.
        profile: of the data, made before training; without it the data is looked at here.
        code: the packed folder that the task came from; else what the job says.
        parameters: what a sweep chose.

    Raises:
        JobFailed: parity failed, a sample does not fit, or the task's own code raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with user_code():
        splits = task.splits()
    if profile is None:
        profile = profile_splits(task, splits, spec.dataset.model_copy(update={"check": "off"}))
    data = _data(task, splits)
    enter(JobState.EXPORTING)
    net, samples = _net(task, training), data.head[:PARITY_SAMPLES]
    exported = _export(net, task, samples, folder)
    others = [make(form, net, samples, folder) for form in spec.optimize.formats]
    weights = _weights(training, folder)
    enter(JobState.OPTIMIZING)
    found = _search(task, spec, training, exported, data, folder, executor, cache)
    code = code if code is not None else spec.code
    lineage = Lineage(
        job=training.job,
        attempt=training.attempt,
        task=spec.task,
        code_sha256=code.sha256 if code is not None else training.code_sha256,
        code=code,
        parameters=dict(parameters or {}),
        dataset_sha256=profile.sha256,
        seed=spec.seed,
        epochs=training.epochs,
        parent=training.parent,
        parity_max_abs=exported.parity_max_abs,
        environment=environment(required(code_folder(task))),
        passes=passes_of(found),
    )
    return write_package(
        folder,
        model=spec.model_name,
        signature=task.signature,
        labels=task.labels,
        variants=variants_of(found, data.head, platform.machine()),
        rejected=rejected_of(found),
        lineage=lineage,
        baseline=profile.baseline,
        preprocess=task.preprocess,
        postprocess=task.postprocess,
        budgets=spec.optimize.classes,
        exports=[_other(one) for one in others],
        weights=weights,
    )


def _other(made: OtherFile) -> ExportedFile:
    return ExportedFile(
        format=made.format,
        file=describe(made.path),
        parity_max_abs=made.parity_max_abs,
        samples=made.samples,
    )


def _search(
    task: Task,
    spec: JobSpec,
    training: Training,
    exported: Exported,
    data: Data,
    folder: Path,
    executor: Executor | None,
    cache: Path | None,
) -> Optimized:
    export_pass = Pass(
        name="export",
        parameters={"opset": exported.opset, "parity_samples": exported.samples},
        input_sha256=training.weights_sha256,
        output_sha256=sha256_file(exported.path),
    )
    with tempfile.TemporaryDirectory(prefix="argosy-trials-") as scratch:
        kept = Cache(cache or Path(scratch) / "cache")
        nets = TrainedNets(
            task,
            spec,
            training.checkpoint(),
            training.weights_sha256,
            executor=executor or LocalExecutor(),
            cache=kept,
            samples=data.head[:PARITY_SAMPLES],
            scratch=Path(scratch),
        )
        return optimize_graph(
            exported.path,
            data,
            spec.optimize,
            folder=folder,
            cache=kept,
            nets=nets,
            passes=(export_pass,),
        )


def code_folder(task: Task) -> Path:
    """The folder from which a task's module was imported: for ``a.b``, the one that holds a."""
    source = source_of(task)
    below = type(task).__module__.count(".") + (source.name == "__init__.py")
    parents = source.resolve().parents
    return parents[min(below, len(parents) - 1)]


def _data(task: Task, splits: Splits) -> Data:
    validation = Stream(task, splits.validation, "validation")
    return Data(
        train=Stream(task, splits.train, "train"),
        validation=validation,
        test=Stream(task, splits.test, "test"),
        head=validation.head(max(PARITY_SAMPLES, MEASURED_SAMPLES)).x,
    )


def _net(task: Task, training: Training) -> nn.Module:
    with user_code():
        net = task.model()
    try:
        net.load_state_dict(training.weights)
    except RuntimeError as error:
        if training.parent is None:
            raise
        first = str(error).splitlines()[-1].strip()[:300]
        detail = (
            f"the weights of {training.parent} do not fit the net of this task ({first}); "
            "use the task and the config that the version was trained with"
        )
        raise JobFailed(JobCause.USER_CODE, detail) from error
    return net


def _weights(training: Training, folder: Path) -> ModelFile:
    buffer = io.BytesIO()
    torch.save(dict(training.weights), buffer)
    path = folder / WEIGHTS
    write_atomic(path, buffer.getvalue())
    return describe(path)


def _export(net: nn.Module, task: Task, samples: Array, folder: Path) -> Exported:
    exported = export(net, task.signature, samples, folder / "model-fp32.onnx")
    log.info(
        "exported to ONNX opset %d, %d bytes; largest difference from torch %.2g",
        exported.opset,
        exported.path.stat().st_size,
        exported.parity_max_abs,
    )
    return exported
