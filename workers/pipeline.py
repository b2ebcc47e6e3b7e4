"""From trained weights to a package: export, quantize, evaluate, profile, pack.

The same steps for a job on a cluster and for ``run-local``; who calls says where the
states go.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schemas.job import JobState
from schemas.jobfile import JobSpec
from schemas.model import Accuracy, Lineage, Pass, RejectedVariant
from workers.blame import user_code
from workers.data import Labelled, dataset_sha256, set_sha256, stack
from workers.evaluate import accuracy
from workers.export import Exported, export
from workers.files import sha256_bytes, sha256_file
from workers.loop import unpack
from workers.optimize import Scheme, accuracy_gate, choose_scheme, quantize
from workers.package import Made, Package, environment, variant_of, write_package
from workers.profile import Candidate, Timing, preference, profile
from workers.session import infer, open_session
from workers.task import SPLITS, Task

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


def build(
    task: Task,
    spec: JobSpec,
    training: Training,
    folder: Path,
    *,
    enter: Callable[[JobState], None],
) -> Package:
    """Make the package of a trained task in ``folder``.

    Args:
        task: the task.
        spec: the job.
        training: its result.
        folder: an empty or absent folder.
        enter: is told EXPORTING and OPTIMIZING as they begin.

    Raises:
        JobFailed: parity failed, or the task's own code raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = load_splits(task)
    enter(JobState.EXPORTING)
    exported = _export(task, training, data, folder)
    enter(JobState.OPTIMIZING)
    scheme = choose_scheme(platform.machine())
    variants = _variants(spec, exported, scheme, data, training)
    timings = profile(variants.paths, data["validation"].x[:PROFILE_SAMPLES])
    order = preference([Candidate(i, i, t.cpu_ms) for i, t in timings.items()])
    log.info("variants in order of preference: %s", ", ".join(order))
    lineage = Lineage(
        job=training.job,
        attempt=training.attempt,
        task=spec.task,
        code_sha256=training.code_sha256,
        dataset_sha256=dataset_sha256(data),
        seed=spec.seed,
        epochs=training.epochs,
        parity_max_abs=exported.parity_max_abs,
        environment=environment(),
        passes=variants.passes,
    )
    made = [_made(i, variants, timings[i], scheme, exported.opset) for i in order]
    return write_package(
        folder,
        model=spec.model_name,
        signature=task.signature,
        labels=task.labels,
        variants=[variant_of(one, data["validation"].x) for one in made],
        rejected=variants.rejected,
        lineage=lineage,
    )


def load_splits(task: Task) -> dict[str, Labelled]:
    """All splits as arrays, checked."""
    with user_code():
        splits = task.splits()
    return {
        name: stack(splits.get(name), task.input_spec, name, len(task.labels)) for name in SPLITS
    }


def _export(task: Task, training: Training, data: dict[str, Labelled], folder: Path) -> Exported:
    with user_code():
        net = task.model()
        net.load_state_dict(training.weights)
    exported = export(
        net, task.signature, data["validation"].x[:PARITY_SAMPLES], folder / "model-fp32.onnx"
    )
    log.info(
        "exported to ONNX opset %d, %d bytes; largest difference from torch %.2g",
        exported.opset,
        exported.path.stat().st_size,
        exported.parity_max_abs,
    )
    return exported


def _variants(
    spec: JobSpec,
    exported: Exported,
    scheme: Scheme,
    data: dict[str, Labelled],
    training: Training,
) -> _Variants:
    paths = {FP32: exported.path}
    measured = {FP32: _measure(FP32, exported.path, data)}
    rejected: tuple[RejectedVariant, ...] = ()
    export_pass = Pass(
        name="export",
        parameters={"opset": exported.opset, "parity_samples": exported.samples},
        input_sha256=training.weights_sha256,
        output_sha256=sha256_file(exported.path),
    )
    passes = [export_pass]
    if spec.optimize.int8:
        target = exported.path.parent / "model-int8.onnx"
        calibration = calibration_of(data, spec)
        quantized = quantize(exported.path, target, scheme, calibration.x)
        passes += _quantize_passes(
            export_pass.output_sha256,
            quantized.preprocessed,
            target,
            scheme,
            calibration,
        )
        figures = _measure(INT8, target, data)
        reason = accuracy_gate(measured[FP32][0], figures[0], spec.optimize.max_accuracy_drop)
        if reason is None:
            paths[INT8] = target
            measured[INT8] = figures
        else:
            log.warning("int8 is not kept: %s", reason)
            rejected = (RejectedVariant(id=INT8, reason=reason),)
            target.unlink()
    return _Variants(paths, measured, rejected, tuple(passes))


def calibration_of(data: dict[str, Labelled], spec: JobSpec) -> Labelled:
    """The samples that set the quantization ranges, evenly spaced over the training split.

    Its first samples could be of one class: many data sets are sorted.
    """
    train = data["train"]
    n = min(spec.optimize.calibration_samples, len(train))
    chosen = np.arange(n) * len(train) // n
    return Labelled(train.x[chosen], train.y[chosen])


def _quantize_passes(
    source: str, preprocessed: bytes, target: Path, scheme: Scheme, calibration: Labelled
) -> list[Pass]:
    between = sha256_bytes(preprocessed)
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
                "calibration_sha256": set_sha256(calibration),
            },
            input_sha256=between,
            output_sha256=sha256_file(target),
        ),
    ]


def _measure(name: str, path: Path, data: dict[str, Labelled]) -> tuple[Accuracy, ...]:
    """Accuracy on the validation split (which decides) and the test split (which reports)."""
    session = open_session(path)
    figures = tuple(
        accuracy(infer(session, data[split].x), data[split], split)
        for split in ("validation", "test")
    )
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
