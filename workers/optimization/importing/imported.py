"""From a model that was made elsewhere to a package: check, run, measure, quantize, pack.

The file is looked at by the guard before any library opens it, then run in a process with
limits. Only what passes both is opened here.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from schemas.dataset import DatasetProfile
from schemas.job import JobCause, JobState
from schemas.jobfile import JobSpec
from schemas.model import Lineage, Pass
from schemas.onnx_guard import UnsafeModelError, check_model
from schemas.onnx_read import every_graph, read_model
from schemas.optimize import OnnxSource
from schemas.signature import Signature, TensorSpec
from workers.errors import JobFailed
from workers.files import sha256_bytes, sha256_file
from workers.inspection.dataset import profile_splits
from workers.inspection.stream import Stream
from workers.optimization.executor import Executor
from workers.optimization.importing.drawn import concrete, draw
from workers.optimization.importing.given import GivenTask, read_given
from workers.optimization.importing.imported_costs import Feed
from workers.optimization.importing.imported_variants import (
    Made,
    Original,
    with_samples,
    without_samples,
)
from workers.optimization.importing.smoke import Limits, Smoked, smoke
from workers.optimization.packing.golden import golden_count
from workers.optimization.packing.package import Package, environment, write_package
from workers.optimization.point import Precision
from workers.optimization.searching.search import MEASURED_SAMPLES, Data
from workers.optimization.session import Array

log = logging.getLogger(__name__)

_HALF_FLOAT = 10
_WHOLE = ("QuantizeLinear", "DequantizeLinear", "MatMulInteger", "ConvInteger", "MatMulNBits")
_SCORE_AXES = 2
"""Of scores over classes: [n, classes]."""


def build_imported(
    spec: JobSpec,
    file: Path,
    folder: Path,
    *,
    enter: Callable[[JobState], None],
    executor: Executor,
    job: str | None = None,
    attempt: int | None = None,
    limits: Limits | None = None,
) -> Package:
    """Make the package of a model made elsewhere in ``folder``.

    Args:
        spec: a job with ``onnx``.
        file: the ONNX file, as it was fetched.
        folder: an empty or absent folder.
        enter: is told EXPORTING and OPTIMIZING as they begin.
        executor: of trials that must be trained, of which a graph alone has none.
        job: whose result this is.
        attempt: of the job.
        limits: of the first run, other than the usual ones.

    Raises:
        JobFailed: user_code: the model is refused, with the reason; bad_data: its samples
            are not usable.
    """
    if spec.onnx is None:
        msg = "the job has no onnx section"
        raise ValueError(msg)
    del executor
    enter(JobState.EXPORTING)
    folder.mkdir(parents=True, exist_ok=True)
    original, smoked = _checked(spec.onnx, file, folder, spec.seed, limits)
    enter(JobState.OPTIMIZING)
    if spec.onnx.data is None:
        profile, made = None, _drawn(spec, original, smoked)
    else:
        profile, made = _given(spec, spec.onnx, original, smoked)
    return write_package(
        folder,
        model=spec.model_name,
        signature=original.signature,
        labels=spec.onnx.labels,
        variants=made.variants,
        rejected=made.rejected,
        lineage=Lineage(
            job=job,
            attempt=attempt,
            source=spec.onnx.name,
            source_sha256=spec.onnx.file,
            dataset_sha256=None if profile is None else profile.sha256,
            seed=spec.seed,
            environment=environment(),
            passes=made.passes,
        ),
        baseline=None if profile is None else profile.baseline,
    )


def _checked(
    source: OnnxSource, file: Path, folder: Path, seed: int, limits: Limits | None
) -> tuple[Original, Smoked]:
    """Let the guard look at the file, then run it; a copy in ``folder``, and what was seen."""
    data = file.read_bytes()
    if sha256_bytes(data) != source.file:
        detail = f"{source.name} has other bytes than the job says; upload it again"
        raise JobFailed(JobCause.USER_CODE, detail)
    try:
        facts = check_model(data)
    except UnsafeModelError as error:
        detail = f"{source.name} is refused: {error}"
        raise JobFailed(JobCause.USER_CODE, detail) from error
    precision = precision_of(data)
    path = folder / f"model-{precision}.onnx"
    shutil.copyfile(file, path)
    smoked = smoke(path, source.signature, seed=seed, limits=limits, name=source.name)
    passed = Pass(
        name="import",
        parameters={"opset": facts.opset, "ir_version": facts.ir_version, "nodes": facts.nodes},
        input_sha256=source.file,
        output_sha256=sha256_file(path),
    )
    _tell(source, precision, smoked)
    return Original(path, precision, facts.opset, smoked.signature, (passed,)), smoked


def precision_of(data: bytes) -> Precision:
    """Whether a checked model is quantized or in half precision, by its operators and weights."""
    model = read_model(memoryview(data))
    graphs = every_graph([] if model.graph is None else [model.graph])
    nodes = [node for graph in graphs for node in graph.nodes]
    if any(node.op in _WHOLE or node.op.startswith(("QLinear", "QGemm")) for node in nodes):
        return "int8"
    weights = [t for g in graphs for t in g.constants.values()]
    weights += [t for node in nodes for a in node.attributes.values() for t in a.tensors]
    half = sum(t.elements for t in weights if t.dtype == _HALF_FLOAT)
    return "fp16" if 2 * half > sum(t.elements for t in weights) else "fp32"


def _tell(source: OnnxSource, precision: str, smoked: Smoked) -> None:
    """What a person should know of it before it goes to devices."""
    signature = smoked.signature
    shapes = ", ".join(f"{s.name} {s.dtype}{list(s.shape)}" for s in signature.inputs)
    log.info("%s: %s, takes %s", source.name, precision, shapes)
    if len(signature.inputs) > 1:
        log.warning(
            "it takes %d inputs: a device feeds it by name (an array for each in the npz of "
            "`argosy-edge run --source`, or Edge(home).model().predict({...}) in a program); "
            "batch inference feeds models of one input only",
            len(signature.inputs),
        )
    if any(-1 in spec.shape[1:] for spec in signature.inputs):
        sizes = ", ".join(f"{n} {list(size)}" for n, size in smoked.sizes.items())
        log.warning(
            "sizes other than the batch are open; it is measured with %s: "
            "give a signature with the sizes that are served",
            sizes,
        )


def _drawn(spec: JobSpec, original: Original, smoked: Smoked) -> Made:
    """Without samples: measured with drawn inputs, which say nothing of accuracy."""
    inputs = original.signature.inputs
    many = golden_count(_bytes_each(original.signature, smoked)) if smoked.batched else 1
    golden = draw([_sized(s, smoked, many) for s in inputs], spec.seed)
    feed = draw([_sized(s, smoked, 1) for s in inputs], spec.seed + 1)
    log.info("no samples are given: nothing can be said of accuracy")
    return without_samples(spec, original, Feed(feed, cut=smoked.batched), golden)


def _given(
    spec: JobSpec, source: OnnxSource, original: Original, smoked: Smoked
) -> tuple[DatasetProfile, Made]:
    """With samples: scored, and quantized within the budget of accuracy."""
    classes = _classes(original.signature, smoked)
    labels = source.labels or tuple(str(i) for i in range(classes))
    if len(labels) != classes:
        detail = f"onnx.labels: {len(labels)} for the {classes} scores that {source.name} gives"
        raise JobFailed(JobCause.BAD_DATA, detail)
    given = read_given(source.data or "", original.signature.inputs[0])
    task = GivenTask(given, original.signature.inputs[0], labels, spec.seed)
    splits = task.splits()
    profile = profile_splits(task, splits, spec.dataset)
    validation = Stream(task, splits.validation, "validation")
    head = validation.head(MEASURED_SAMPLES).x
    data = Data(
        train=Stream(task, splits.train, "train"),
        validation=validation,
        test=Stream(task, splits.test, "test"),
        head=head,
    )
    many = golden_count(_bytes_each(original.signature, smoked))
    golden: Mapping[str, Array] = {task.input_spec.name: np.ascontiguousarray(head[:many])}
    return profile, with_samples(spec, original, data, golden)


def _classes(signature: Signature, smoked: Smoked) -> int:
    """How many classes the model scores.

    Raises:
        JobFailed: bad_data: samples are given, and nothing of them could be compared.
    """
    first = signature.outputs[0]
    scores = len(first.shape) == _SCORE_AXES and first.shape[1] > 1
    floats = first.dtype in {"float16", "float32", "float64"}
    if len(signature.inputs) == 1 and smoked.batched and scores and floats:
        return first.shape[1]
    detail = (
        "onnx.data: accuracy is measured of models with one input, a free batch, and scores "
        f"[n, classes] as first output; this one takes {len(signature.inputs)} inputs and gives "
        f"{first.dtype}{list(first.shape)}; import it without data"
    )
    raise JobFailed(JobCause.BAD_DATA, detail)


def _sized(spec: TensorSpec, smoked: Smoked, n: int) -> TensorSpec:
    """The spec of n samples at once, of the sizes that ran."""
    size = smoked.sizes[spec.name]
    return concrete(spec, (n, *size[1:]) if smoked.batched else size)


def _bytes_each(signature: Signature, smoked: Smoked) -> int:
    """Of one sample's inputs and outputs, as far as they are known."""
    inputs = ((s.dtype, smoked.sizes[s.name]) for s in signature.inputs)
    outputs = ((s.dtype, s.shape) for s in signature.outputs)
    return sum(
        math.prod(abs(size) for size in shape) * np.dtype(dtype).itemsize
        for dtype, shape in (*inputs, *outputs)
    )
