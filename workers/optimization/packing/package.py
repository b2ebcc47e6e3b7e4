"""The model package: golden vectors, the manifest, and the folder that holds them."""

from __future__ import annotations

import io
import platform
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from schemas.budget import Budget
from schemas.dataset import Baseline
from schemas.measure import Golden, ModelFile
from schemas.model import (
    MAX_MANIFEST_BYTES,
    ExportedFile,
    Lineage,
    Manifest,
    RejectedVariant,
    Variant,
)
from schemas.ops import Postprocess, Preprocess
from schemas.signature import Signature
from workers.errors import WorkerError
from workers.files import describe, write_atomic
from workers.optimization.session import Array, infer, open_session

GOLDEN_SAMPLES = 16
TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2, "int8": 0.05}
"""Of a probability, between this machine's kernels and a device's."""

MANIFEST = "manifest.json"
PLATFORM = ("argosy", "torch", "ray", "onnx", "onnxscript", "onnxruntime", "numpy")
MAX_REQUIREMENTS = 64 * 1024
MAX_NAMED = 200
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(?:[\[=<>!~;@ ]|$)")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def npz(arrays: dict[str, Array]) -> bytes:
    """An npz archive whose bytes follow from the arrays alone, with no time of day in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            inner = io.BytesIO()
            np.lib.format.write_array(inner, np.asarray(array, order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), inner.getvalue())
    return buffer.getvalue()


def write_golden(variant: str, precision: str, model: Path, inputs: Array) -> Golden:
    """Run real inputs through a variant's own file and keep what came out beside it.

    inputs: (n, …) of the served dtype; the first ``GOLDEN_SAMPLES`` are used.
    """
    chosen = inputs[:GOLDEN_SAMPLES]
    outputs = infer(open_session(model), chosen)
    path = model.parent / f"golden-{variant}.npz"
    write_atomic(path, npz({"in_0": chosen, "out_0": outputs}))
    return Golden(file=describe(path), samples=len(chosen), tolerance=TOLERANCE[precision])


@dataclass(frozen=True, slots=True)
class Package:
    """A folder with every file that the manifest names, and the manifest."""

    folder: Path
    manifest: Manifest

    def files(self) -> tuple[tuple[str, Path], ...]:
        """(sha256, path) of each file, without repeats."""
        found = {f.sha256: self.folder / f.path for f in self.manifest.files()}
        return tuple(found.items())


def write_package(
    folder: Path,
    *,
    model: str,
    signature: Signature,
    labels: Sequence[str],
    variants: Sequence[Variant],
    rejected: Sequence[RejectedVariant],
    lineage: Lineage,
    baseline: Baseline | None = None,
    preprocess: Sequence[Preprocess] = (),
    postprocess: Sequence[Postprocess] = (),
    budgets: Mapping[str, Budget] | None = None,
    exports: Sequence[ExportedFile] = (),
    weights: ModelFile | None = None,
) -> Package:
    """Write the manifest beside the files it names.

    Args:
        folder: that holds them.
        model: its name.
        signature: of the graph.
        labels: of the classes.
        variants: best first.
        rejected: with their reasons.
        lineage: where it came from.
        baseline: what drift is measured against.
        preprocess: what is done to inputs before the graph.
        postprocess: what is done to its outputs.
        budgets: by device class, that the variants were held to.
        exports: for other runtimes.
        weights: from which a later job can go on.

    Raises:
        WorkerError: it is larger than the registry takes.
    """
    manifest = Manifest(
        model=model,
        signature=signature,
        labels=tuple(labels),
        variants=tuple(variants),
        rejected=tuple(rejected),
        lineage=lineage,
        baseline=baseline,
        preprocess=tuple(preprocess),
        postprocess=tuple(postprocess),
        budgets=dict(budgets or {}),
        exports=tuple(exports),
        weights=weights,
    )
    text = manifest.model_dump_json(indent=1).encode()
    if len(text) > MAX_MANIFEST_BYTES:
        msg = f"the manifest has {len(text)} bytes, more than {MAX_MANIFEST_BYTES}"
        raise WorkerError(msg, "shorten the labels, or try fewer variants")
    write_atomic(folder / MANIFEST, text)
    return Package(folder, manifest)


def environment(extra: Iterable[str] = ()) -> dict[str, str]:
    """The versions that decided the result. extra: packages besides the platform's own."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in (*PLATFORM, *extra):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def required(folder: Path) -> tuple[str, ...]:
    """The names of the packages that a code folder's ``requirements.txt`` asks for."""
    try:
        with (folder / "requirements.txt").open(encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_REQUIREMENTS)
    except OSError:
        return ()
    found = (_REQUIREMENT.match(line) for line in text.splitlines())
    return tuple(dict.fromkeys(one[1] for one in found if one is not None))[:MAX_NAMED]
