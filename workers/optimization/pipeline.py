"""From trained weights to a package: export, quantize, evaluate, profile, pack.

The same steps for a job on a cluster and for ``run-local``; who calls says where the
states go.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schemas.dataset import DatasetProfile
from schemas.job import JobCause, JobState
from schemas.jobfile import Code, JobSpec
from schemas.measure import Accuracy
from schemas.model import Lineage, Pass, RejectedVariant
from schemas.sweep import Choice
from workers.blame import user_code
from workers.errors import JobFailed, WorkerError
from workers.files import sha256_bytes, sha256_file
from workers.inspection.dataset import profile_splits
from workers.inspection.stream import Block, SetHash, Stream
from workers.optimization.evaluate import measure
from workers.optimization.export import Exported, export
from workers.optimization.latency import Candidate, Timing, preference
from workers.optimization.latency import profile as time_each
from workers.optimization.package import (
    Made,
    Package,
    environment,
    required,
    variant_of,
    write_package,
)
from workers.optimization.quantize import Scheme, accuracy_gate, choose_scheme, quantize
from workers.optimization.session import Array, open_session
from workers.task import Splits, Task, source_of
from workers.training.loop import unpack

log = logging.getLogger(__name__)

PARITY_SAMPLES = 64
PROFILE_SAMPLES = 64
FP32 = "fp32"
INT8 = "int8"


@dataclass(frozen=True, slots=True)
class Training:
    """What the training left: weights (a state dict) and where they came from.

    code_sha256: of the task's code as the training began; None if the checkpoint
    does not tell.
    """

    weights: Mapping[str, Any]
    weights_sha256: str
    code_sha256: str | None
    epochs: int
    job: str | None = None
    attempt: int | None = None


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


@dataclass(frozen=True, slots=True)
class _Variants:
    """Files by variant id, with what is known of each."""

    paths: dict[str, Path]
    accuracy: dict[str, tuple[Accuracy, ...]]
    rejected: tuple[RejectedVariant, ...]
    passes: tuple[Pass, ...]


@dataclass(frozen=True, slots=True)
class _Data:
    """What the pipeline reads of the data. head: the first validation inputs."""

    train: Stream
    validation: Stream
    test: Stream
    head: Array


def build(
    task: Task,
    spec: JobSpec,
    training: Training,
    folder: Path,
    *,
    enter: Callable[[JobState], None],
    profile: DatasetProfile | None = None,
    code: Code | None = None,
    parameters: Mapping[str, Choice] | None = None,
) -> Package:
    """Make the package of a trained task in ``folder``.

    Args:
        task: the task.
        spec: the job.
        training: its result.
        folder: an empty or absent folder.
        enter: is told EXPORTING and OPTIMIZING as they begin.
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
    exported = _export(task, training, data.head[:PARITY_SAMPLES], folder)
    enter(JobState.OPTIMIZING)
    scheme = choose_scheme(platform.machine())
    variants = _variants(spec, exported, scheme, data, training)
    timings = time_each(variants.paths, data.head[:PROFILE_SAMPLES])
    order = preference([Candidate(i, i, t.cpu_ms) for i, t in timings.items()])
    log.info("variants in order of preference: %s", ", ".join(order))
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
        parity_max_abs=exported.parity_max_abs,
        environment=environment(required(code_folder(task))),
        passes=variants.passes,
    )
    made = [_made(i, variants, timings[i], scheme, exported.opset) for i in order]
    return write_package(
        folder,
        model=spec.model_name,
        signature=task.signature,
        labels=task.labels,
        variants=[variant_of(one, data.head) for one in made],
        rejected=variants.rejected,
        lineage=lineage,
        baseline=profile.baseline,
    )


def code_folder(task: Task) -> Path:
    """The folder from which a task's module was imported: for ``a.b``, the one that holds a."""
    source = source_of(task)
    below = type(task).__module__.count(".") + (source.name == "__init__.py")
    parents = source.resolve().parents
    return parents[min(below, len(parents) - 1)]


def _data(task: Task, splits: Splits) -> _Data:
    validation = Stream(task, splits.validation, "validation")
    return _Data(
        train=Stream(task, splits.train, "train"),
        validation=validation,
        test=Stream(task, splits.test, "test"),
        head=validation.head(max(PARITY_SAMPLES, PROFILE_SAMPLES)).x,
    )


def _export(task: Task, training: Training, samples: Array, folder: Path) -> Exported:
    with user_code():
        net = task.model()
        net.load_state_dict(training.weights)
    exported = export(net, task.signature, samples, folder / "model-fp32.onnx")
    log.info(
        "exported to ONNX opset %d, %d bytes; largest difference from torch %.2g",
        exported.opset,
        exported.path.stat().st_size,
        exported.parity_max_abs,
    )
    return exported


def _variants(
    spec: JobSpec, exported: Exported, scheme: Scheme, data: _Data, training: Training
) -> _Variants:
    reference = _measure(FP32, exported.path, data)
    export_pass = Pass(
        name="export",
        parameters={"opset": exported.opset, "parity_samples": exported.samples},
        input_sha256=training.weights_sha256,
        output_sha256=sha256_file(exported.path),
    )
    plain = _Variants({FP32: exported.path}, {FP32: reference}, (), (export_pass,))
    if not spec.optimize.int8:
        return plain
    # Spread over the whole split: its first samples could all be of one class.
    calibration = data.train.spaced(spec.optimize.calibration_samples)
    target = exported.path.parent / "model-int8.onnx"
    made = _quantized(exported.path, target, scheme, calibration, data)
    if isinstance(made, _Quantized):
        _require_same_samples(reference, made.accuracy)
        passes = (
            export_pass,
            *_quantize_passes(
                export_pass.output_sha256, made.preprocessed, target, scheme, calibration
            ),
        )
        reason = accuracy_gate(reference[0], made.accuracy[0], spec.optimize.max_accuracy_drop)
        if reason is None:
            return _Variants(
                {FP32: exported.path, INT8: target},
                {FP32: reference, INT8: made.accuracy},
                (),
                passes,
            )
        plain = replace(plain, passes=passes)
    else:
        reason = made
    log.warning("int8 is not kept: %s", reason)
    target.unlink(missing_ok=True)
    return replace(plain, rejected=(RejectedVariant(id=INT8, reason=reason),))


@dataclass(frozen=True, slots=True)
class _Quantized:
    """preprocessed: the graph that was quantized; accuracy: on validation and test."""

    preprocessed: bytes
    accuracy: tuple[Accuracy, ...]


def _quantized(
    source: Path, target: Path, scheme: Scheme, calibration: Block, data: _Data
) -> _Quantized | str:
    """The quantized file, measured; or why there is none, which does not fail the job."""
    try:
        made = quantize(source, target, scheme, calibration.x)
        return _Quantized(made.preprocessed, _measure(INT8, target, data))
    except WorkerError:
        raise
    except Exception as error:  # noqa: BLE001 - the libraries raise what they like
        first = (str(error).strip().splitlines() or ["no message"])[0][:300]
        return f"it cannot be made or does not run: {type(error).__name__}: {first}"


def _require_same_samples(one: tuple[Accuracy, ...], other: tuple[Accuracy, ...]) -> None:
    for first, second in zip(one, other, strict=True):
        if first.set_sha256 != second.set_sha256:
            detail = (
                f"the {first.split} samples are others each time they are read; keep chance out "
                "of splits(), and vary training batches in augment()"
            )
            raise JobFailed(JobCause.BAD_DATA, detail)


def _quantize_passes(
    source: str, preprocessed: bytes, target: Path, scheme: Scheme, calibration: Block
) -> list[Pass]:
    between = sha256_bytes(preprocessed)
    digest = SetHash(len(calibration))
    digest.update(calibration)
    return [
        Pass(name="quant_pre_process", input_sha256=source, output_sha256=between),
        Pass(
            name="quantize_static",
            parameters={
                "scheme": scheme.name,
                "per_channel": True,
                "reduce_range": scheme.reduce_range,
                "calibration_split": "train",
                "calibration_choice": "evenly spaced",
                "calibration_samples": len(calibration),
                "calibration_sha256": digest.hexdigest(),
            },
            input_sha256=between,
            output_sha256=sha256_file(target),
        ),
    ]


def _measure(name: str, path: Path, data: _Data) -> tuple[Accuracy, ...]:
    """Accuracy on the validation split (which decides) and the test split (which reports)."""
    session = open_session(path)
    figures = tuple(measure(session, stream) for stream in (data.validation, data.test))
    for one in figures:
        log.info("%s: %s accuracy %.4f (n=%d)", name, one.split, one.value, one.n)
    return figures


def _made(variant: str, known: _Variants, timing: Timing, scheme: Scheme, opset: int) -> Made:
    quantized = variant == INT8
    return Made(
        id=variant,
        precision=variant,
        scheme=scheme.name if quantized else "none",
        opset=opset,
        path=known.paths[variant],
        arch=(scheme.arch,) if quantized else (),
        accuracy=known.accuracy[variant],
        benchmark=timing.benchmark,
    )
