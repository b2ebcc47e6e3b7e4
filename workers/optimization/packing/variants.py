"""From what a search kept to the manifest's entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx

from schemas.measure import Accuracy
from schemas.model import Pass, RejectedVariant, Variant
from workers.files import describe, write_atomic
from workers.optimization.measuring.evaluate import Scored
from workers.optimization.packing.package import write_golden
from workers.optimization.point import Point, requires_of
from workers.optimization.searching.search import Optimized
from workers.optimization.searching.trials import Trial
from workers.optimization.session import Array

MAX_REASON = 1000
MAX_REJECTED = 200
MAX_FLOAT_NODES = 1000


def variants_of(found: Optimized, golden_inputs: Array, arch: str) -> tuple[Variant, ...]:
    """The manifest's variants, best first; writes golden vectors and outcomes beside them.

    Args:
        found: by a search, whose kept files lie where the package is made.
        golden_inputs: real inputs, (n, …).
        arch: of the machines to be served.
    """
    return tuple(_variant(found, trial, golden_inputs, arch) for trial in found.kept())


def _variant(found: Optimized, trial: Trial, golden_inputs: Array, arch: str) -> Variant:
    point, path, cost = trial.point, trial.path, trial.cost
    if path is None or cost is None:
        msg = f"{point.id} was kept and has no file that was measured"
        raise ValueError(msg)
    scored = [one for one in (trial.scored, found.tests.get(point)) if one is not None]
    known = next(one for one in found.selection.kept if one.point == point)
    floats = (*point.float_nodes, *trial.forced) if point.quantized else ()
    return Variant(
        id=point.id,
        precision=point.precision,
        scheme=point.scheme,
        opset=opset_of(path),
        file=describe(path),
        compressed_bytes=cost.compressed_bytes,
        pruned=point.pruned,
        float_nodes=floats[:MAX_FLOAT_NODES],
        requires=requires_of(point, arch),
        accuracy=tuple(_with_outcomes(path.parent, point, one) for one in scored),
        paired=None if point == Point() else known.paired,
        benchmarks=cost.benchmarks,
        golden=write_golden(point.id, point.precision, path, golden_inputs),
        front=point.id in found.selection.front,
    )


def _with_outcomes(folder: Path, point: Point, scored: Scored) -> Accuracy:
    path = folder / f"outcomes-{point.id}-{scored.accuracy.split}.bin"
    write_atomic(path, scored.outcomes.bits)
    return scored.accuracy.model_copy(update={"outcomes": describe(path)})


def rejected_of(found: Optimized) -> tuple[RejectedVariant, ...]:
    """The manifest's rejected variants, with their reasons."""
    return tuple(
        _rejected(found.trials[point], reason, found)
        for point, reason in list(found.selection.rejected.items())[:MAX_REJECTED]
    )


def _rejected(trial: Trial, reason: str, found: Optimized) -> RejectedVariant:
    known = found.known[trial.point]
    return RejectedVariant(
        id=trial.point.id,
        reason=" ".join(reason.split())[:MAX_REASON],
        size=trial.size,
        p50_ms=known.figures.p50_ms if known.figures is not None else None,
        paired=known.paired,
    )


def passes_of(found: Optimized) -> tuple[Pass, ...]:
    """Every pass that led to a kept file, once each; of one variant alone, with its name."""
    return merged((trial.point.id, trial.passes) for trial in found.kept())


def merged(passes: Iterable[tuple[str, Sequence[Pass]]]) -> tuple[Pass, ...]:
    """Passes by the variant that they led to, without repeats, in the order of their making."""
    seen: dict[tuple[str, str, str], Pass] = {}
    for variant, steps in passes:
        for step in steps:
            key = (step.name, step.input_sha256, step.output_sha256)
            shared = key in seen
            seen[key] = step.model_copy(update={"variant": None if shared else variant})
    made = {step.output_sha256 for step in seen.values()}
    first = [step for step in seen.values() if step.input_sha256 not in made]
    rest = [step for step in seen.values() if step.input_sha256 in made]
    return (*first, *rest)


def opset_of(path: Path) -> int:
    """The version of ONNX's operators that a file is written in."""
    opsets = onnx.load(path).opset_import
    return next((int(one.version) for one in opsets if one.domain in {"", "ai.onnx"}), 0)
