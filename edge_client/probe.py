"""The trial load of a model, in a process of its own.

``python -m edge_client.probe`` reads what to try from standard input, puts limits on
itself, loads the model, runs the golden vectors and prints the verdict as one line of
JSON. Whatever the model does to this process, the agent goes on.
"""

from __future__ import annotations

import io
import os
import resource
import sys
import zipfile
from pathlib import Path

import numpy as np

from edge_client.errors import (
    EdgeError,
    GoldenError,
    InferenceError,
    InputError,
    LoadError,
    OutOfMemoryError,
    UpdateError,
)
from edge_client.inference import Array, Model, load_model, says_no_memory
from edge_client.settings import MIB, Home
from edge_client.store import Store
from schemas.base import Wire
from schemas.errors import DeviceCause
from schemas.ids import Name, Sha256
from schemas.measure import Golden
from schemas.model import Manifest
from schemas.signature import Signature

MAX_GOLDEN_BYTES = 256 * MIB
MAX_GOLDEN_ARRAYS = 128


class Trial(Wire):
    """What to try. address_bytes: the most memory it may map. cpu_seconds: likewise."""

    home: str
    manifest_sha256: Sha256
    variant: Name
    address_bytes: int
    cpu_seconds: int


class Verdict(Wire):
    """How it went; ``cause`` is None when it passed."""

    cause: DeviceCause | None = None
    detail: str | None = None


def read_golden(data: bytes) -> dict[str, Array]:
    """Read a golden archive: no pickles, bounded in entries and in bytes.

    Raises:
        GoldenError: it is not such an archive, or is too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
        if len(entries) > MAX_GOLDEN_ARRAYS or sum(e.file_size for e in entries) > MAX_GOLDEN_BYTES:
            msg = "the golden archive is too large"
            raise GoldenError(msg)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, MemoryError, EOFError, KeyError) as error:
        msg = f"the golden archive cannot be read: {error}"
        raise GoldenError(msg) from error


def check_golden(model: Model, golden: Golden, arrays: dict[str, Array]) -> None:
    """Run the golden inputs and compare the outputs.

    Raises:
        GoldenError: an output is missing, has another shape, or is too far off.
    """
    inputs, outputs = model.signature.inputs, model.signature.outputs
    wanted = {f"in_{i}" for i in range(len(inputs))} | {f"out_{i}" for i in range(len(outputs))}
    if not wanted <= set(arrays):
        msg = f"the golden archive lacks {min(wanted - set(arrays))}"
        raise GoldenError(msg)
    feed = {spec.name: arrays[f"in_{i}"] for i, spec in enumerate(inputs)}
    got = _run(model, feed, at_once=_fixed_batch(model.signature))
    for i, spec in enumerate(outputs):
        expected, actual = arrays[f"out_{i}"], got[spec.name]
        if expected.shape != actual.shape:
            msg = f"golden output {spec.name}: shape {actual.shape}, not {expected.shape}"
            raise GoldenError(msg)
        worst = float(np.abs(expected.astype(np.float64) - actual.astype(np.float64)).max())
        if not worst <= golden.tolerance:
            msg = f"golden output {spec.name} is off by {worst:.3g}, more than {golden.tolerance:g}"
            raise GoldenError(msg)


def _fixed_batch(signature: Signature) -> int | None:
    """The batch that every input has in front and insists on; None: all goes in at once."""
    first = {spec.shape[:1] for spec in signature.inputs}
    common = next(iter(first)) if len(first) == 1 else ()
    return common[0] if common and common[0] > 0 else None


def _run(model: Model, feed: dict[str, Array], *, at_once: int | None) -> dict[str, Array]:
    """Run all samples, in parts where the batch is fixed."""
    one = next(iter(feed.values()))
    samples = len(one) if one.ndim else 1
    size = at_once or samples
    if samples == 0 or samples % size:
        msg = f"{samples} golden samples do not fill batches of {size}"
        raise GoldenError(msg)
    if samples == size:
        return _predict(model, feed)
    parts = [
        _predict(model, {name: value[start : start + size] for name, value in feed.items()})
        for start in range(0, samples, size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _predict(model: Model, feed: dict[str, Array]) -> dict[str, Array]:
    try:
        return model.predict(feed).outputs
    except (InputError, InferenceError) as error:
        msg = f"golden inputs: {error}"
        if says_no_memory(str(error)):
            raise OutOfMemoryError(msg) from error
        raise GoldenError(msg) from error


def try_model(store: Store, trial: Trial) -> None:
    """Load a variant and run its golden vectors.

    Raises:
        UpdateError: it does not pass.
    """
    manifest = Manifest.model_validate_json(store.manifest(trial.manifest_sha256))
    variant = manifest.variant(trial.variant)
    if variant is None:
        msg = f"the manifest has no variant {trial.variant}"
        raise LoadError(msg)
    model = load_model(store.read(variant.file.sha256), manifest, trial.variant)
    arrays = read_golden(store.read(variant.golden.file.sha256, MAX_GOLDEN_BYTES))
    check_golden(model, variant.golden, arrays)


def main() -> int:
    """Run one trial."""
    trial = Trial.model_validate_json(sys.stdin.read(MIB))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (trial.cpu_seconds, trial.cpu_seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (trial.address_bytes, trial.address_bytes))
    # A model that made onnxruntime print must not be able to forge the verdict.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        try_model(Store(Home(Path(trial.home)), quota=0), trial)
        verdict = Verdict()
    except UpdateError as error:
        verdict = Verdict(cause=error.cause, detail=str(error))
    except MemoryError:
        detail = f"it needs more than the {trial.address_bytes // MIB} MiB that it may have"
        verdict = Verdict(cause=DeviceCause.OUT_OF_MEMORY, detail=detail)
    except (EdgeError, ValueError) as error:
        verdict = Verdict(cause=DeviceCause.LOAD_FAILED, detail=f"{type(error).__name__}: {error}")
    print(verdict.model_dump_json(), file=answer, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
