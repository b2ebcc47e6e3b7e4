"""The variants of a model made elsewhere: as it came, and quantized as far as its data allows.

With samples, the search of a trained net's variants runs on it too. Without any, nothing can
be said of accuracy; its weights alone are quantized, where that is asked for.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from schemas.jobfile import JobSpec
from schemas.measure import Accuracy
from schemas.model import Pass, RejectedVariant, Variant
from schemas.onnx_guard import UnsafeModelError, check_model
from schemas.signature import Signature
from workers.errors import WorkerError
from workers.files import describe, sha256_file, write_atomic
from workers.optimization.cache import Cache
from workers.optimization.importing.imported_costs import Feed, cost_of_each
from workers.optimization.measuring.evaluate import Scored, score
from workers.optimization.measuring.latency import Cost
from workers.optimization.measuring.timing import Failure
from workers.optimization.packing.golden import golden_of
from workers.optimization.packing.variants import passes_of, rejected_of, variants_of
from workers.optimization.point import Point, Precision, requires_of
from workers.optimization.quantizing.quantizer import Quantizer
from workers.optimization.searching.search import Data, optimize_graph
from workers.optimization.searching.trials import first_line
from workers.optimization.session import Array, open_session

log = logging.getLogger(__name__)

DYNAMIC = Point(precision="int8", scheme="dynamic")


@dataclass(frozen=True, slots=True)
class Original:
    """The checked file. passes: that led to it; opset: of its standard operators."""

    path: Path
    precision: Precision
    opset: int
    signature: Signature
    passes: tuple[Pass, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """What goes into the manifest."""

    variants: tuple[Variant, ...]
    rejected: tuple[RejectedVariant, ...]
    passes: tuple[Pass, ...]


@dataclass(frozen=True, slots=True)
class _One:
    """A variant's file and figures, before it is in the manifest."""

    id: str
    precision: Precision
    scheme: str
    path: Path
    cost: Cost


def without_samples(
    spec: JobSpec, original: Original, feed: Feed, golden: Mapping[str, Array]
) -> Made:
    """The model as it came and, if the job asks for it, with its weights quantized.

    Args:
        spec: the job.
        original: the file.
        feed: drawn inputs to measure with.
        golden: drawn inputs of the golden vectors.

    Raises:
        JobFailed: the model as it came cannot be measured.
    """
    paths: dict[str, Path] = {original.precision: original.path}
    rejected, passes = list[RejectedVariant](), list(original.passes)
    dynamic = DYNAMIC.id
    if spec.onnx is not None and spec.onnx.dynamic:
        made = _dynamic(original, golden)
        if isinstance(made, str):
            rejected.append(RejectedVariant(id=dynamic, reason=made))
        else:
            paths[dynamic] = original.path.with_name(f"model-{dynamic}.onnx")
            passes.append(made)
    costs = cost_of_each(paths, feed)
    if (fault := _not_worth(costs, original, dynamic)) is not None:
        size = paths[dynamic].stat().st_size
        rejected.append(RejectedVariant(id=dynamic, reason=fault, size=size))
        paths.pop(dynamic).unlink()
    for one in rejected:
        log.warning("%s is not kept: %s", one.id, one.reason)
    ones = [_one(original, name, path, costs) for name, path in paths.items()]
    ones.sort(key=lambda one: one.cost.cpu_ms)
    variants = tuple(_variant(one, original, golden) for one in ones)
    return Made(variants, tuple(rejected), tuple(passes))


def with_samples(
    spec: JobSpec, original: Original, data: Data, golden: Mapping[str, Array]
) -> Made:
    """What the search keeps of an FP32 model; any other is scored as it came.

    Raises:
        JobFailed: bad_data, or the model cannot be measured.
    """
    if original.precision != "fp32":
        log.info("%s weights are there already: nothing is quantized", original.precision)
        return _scored(original, data, golden)
    folder = original.path.parent
    with TemporaryDirectory(prefix="argosy-import-") as scratch:
        found = optimize_graph(
            original.path,
            data,
            spec.optimize,
            folder=folder,
            cache=Cache(Path(scratch)),
            passes=original.passes,
        )
        rejected = rejected_of(found)
    variants = variants_of(found, data.head, platform.machine())
    return Made(
        tuple(_with_golden(one, original, golden) for one in variants), rejected, passes_of(found)
    )


def _with_golden(variant: Variant, original: Original, golden: Mapping[str, Array]) -> Variant:
    """The variant with golden vectors of all its outputs, of which a trained net has one."""
    path = original.path.with_name(variant.file.path)
    made = golden_of(path, variant.id, variant.precision, original.signature, golden)
    return variant.model_copy(update={"golden": made})


def _scored(original: Original, data: Data, golden: Mapping[str, Array]) -> Made:
    """A model that is quantized already, with its accuracy."""
    name = data.head
    spec = original.signature.inputs[0]
    costs = cost_of_each({original.precision: original.path}, Feed({spec.name: name}, cut=True))
    one = _one(original, original.precision, original.path, costs)
    session = open_session(original.path)
    streams = [s for s in (data.validation, data.test) if s is not None]
    accuracy = tuple(_kept(one, score(session, stream)) for stream in streams)
    return Made((_variant(one, original, golden, accuracy),), (), original.passes)


def _kept(one: _One, scored: Scored) -> Accuracy:
    """An accuracy whose outcomes lie in a file beside the model."""
    path = one.path.with_name(f"outcomes-{one.id}-{scored.accuracy.split}.bin")
    write_atomic(path, scored.outcomes.bits)
    return scored.accuracy.model_copy(update={"outcomes": describe(path)})


def _dynamic(original: Original, feed: Mapping[str, Array]) -> Pass | str:
    """Write the form with quantized weights; the pass that made it, or why there is none."""
    if original.precision != "fp32":
        return f"its weights are {original.precision} already"
    target = original.path.with_name(f"model-{DYNAMIC.id}.onnx")
    try:
        with TemporaryDirectory(prefix="argosy-import-") as scratch:
            quantizer = Quantizer(original.path, None, Path(scratch))
            quantizer.dynamic_to(target, platform.machine())
        check_model(target.read_bytes())
        off = _difference(original, target, feed)
    except UnsafeModelError as error:
        return f"the quantized file is refused: {error}"
    except WorkerError:
        raise
    except Exception as error:  # noqa: BLE001 - the libraries raise what they like
        return first_line(error)
    log.info("%s: outputs differ by at most %.3g from those of the original", DYNAMIC.id, off)
    return Pass(
        name="quantize_dynamic",
        parameters={"max_abs_difference": off, "compared_on": "drawn inputs"},
        input_sha256=sha256_file(original.path),
        output_sha256=sha256_file(target),
        variant=DYNAMIC.id,
    )


def _difference(original: Original, target: Path, feed: Mapping[str, Array]) -> float:
    names = [spec.name for spec in original.signature.outputs]
    pairs = zip(
        *(open_session(p).run(names, dict(feed)) for p in (original.path, target)), strict=True
    )
    return max(
        float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0)) for a, b in pairs
    )


def _not_worth(costs: Mapping[str, Cost | Failure], original: Original, name: str) -> str | None:
    cost, before = costs.get(name), costs[original.precision]
    if isinstance(cost, Failure):
        return f"it cannot be measured: {cost.reason}"
    if cost is None or isinstance(before, Failure):
        return None
    target = original.path.with_name(f"model-{name}.onnx")
    if target.stat().st_size >= original.path.stat().st_size and cost.cpu_ms >= before.cpu_ms:
        return "it is neither smaller nor faster than the model as it came"
    return None


def _one(original: Original, name: str, path: Path, costs: Mapping[str, Cost | Failure]) -> _One:
    cost = costs[name]
    if isinstance(cost, Failure):
        msg = f"{path.name} cannot be measured: {cost.reason}"
        raise WorkerError(msg)
    if name == original.precision:
        return _One(name, original.precision, "none" if name == "fp32" else "imported", path, cost)
    return _One(name, DYNAMIC.precision, DYNAMIC.scheme, path, cost)


def _variant(
    one: _One,
    original: Original,
    golden: Mapping[str, Array],
    accuracy: tuple[Accuracy, ...] = (),
) -> Variant:
    point = DYNAMIC if one.id == DYNAMIC.id else Point()
    return Variant(
        id=one.id,
        precision=one.precision,
        scheme=one.scheme,
        opset=check_model(one.path.read_bytes()).opset,
        file=describe(one.path),
        compressed_bytes=one.cost.compressed_bytes,
        requires=requires_of(point, platform.machine()),
        accuracy=accuracy,
        benchmarks=one.cost.benchmarks,
        golden=golden_of(one.path, one.id, one.precision, original.signature, golden),
    )
