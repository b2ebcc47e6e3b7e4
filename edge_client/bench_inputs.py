"""What variants are measured with: the inputs that each was shipped with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_client.errors import BenchError
from edge_client.files import read_limited
from edge_client.inference import Array
from edge_client.probe import MAX_GOLDEN_BYTES, read_golden
from edge_client.settings import Home
from schemas.measure import Golden
from schemas.signature import TensorSpec

MADE_UP = 16


def read_blob(path: Path, limit: int) -> bytes:
    """A file of the home that is named by its SHA-256; the agent may remove it meanwhile.

    Raises:
        BenchError: it is gone or damaged.
    """
    try:
        data = read_limited(path, limit)
    except OSError as error:
        msg = f"{path.name[:12]} cannot be read: {error.strerror}; it may have been replaced"
        raise BenchError(msg, hint="try again") from error
    if hashlib.sha256(data).hexdigest() != path.stem:
        msg = f"{path.name[:12]} is damaged on the disk"
        raise BenchError(msg)
    return data


def golden_inputs(
    home: Home, golden: Golden, specs: tuple[TensorSpec, ...]
) -> dict[str, Array] | None:
    """The inputs that a variant was shipped with; None where they are not kept any more."""
    try:
        packed = read_blob(home.blobs / golden.file.sha256, MAX_GOLDEN_BYTES)
    except BenchError:
        return None
    arrays = read_golden(packed)
    return {spec.name: arrays[f"in_{i}"] for i, spec in enumerate(specs)}


def made_up(specs: tuple[TensorSpec, ...], n: int = MADE_UP) -> dict[str, Array]:
    """Inputs that fit a signature, at random by a fixed seed: times hardly depend on values."""
    rng = np.random.default_rng(0)
    found = {}
    for spec in specs:
        low, high = spec.range or (0.0, 1.0)
        shape = [n if i == 0 else max(1, size) for i, size in enumerate(spec.shape)]
        found[spec.name] = rng.uniform(low, high, size=shape).astype(spec.dtype)
    return found


def feeds_of(
    samples: Mapping[str, Array], specs: tuple[TensorSpec, ...], sizes: tuple[int, ...]
) -> dict[int, list[dict[str, Array]]]:
    """What is run, by batch size.

    Where not every input has a batch of any size in front, the graph gets what it insists on,
    or all of the samples; that counts as a batch of one, as in the job that measured it.
    """
    first = {spec.shape[:1] for spec in specs}
    if first == {(-1,)}:
        return {size: batches(samples, size) for size in sizes}
    common = next(iter(first)) if len(first) == 1 else ()
    return {1: batches(samples, common[0]) if common else [dict(samples)]}


def batches(samples: Mapping[str, Array], size: int) -> list[dict[str, Array]]:
    """Inputs in batches of exactly ``size``, the first samples taken again to fill one.

    Raises:
        BenchError: there are no samples.
    """
    n = min(len(one) for one in samples.values())
    if n == 0:
        msg = "the golden archive has no samples to run"
        raise BenchError(msg)
    rows = [np.arange(start, start + size) % n for start in range(0, n, size)]
    return [{name: np.ascontiguousarray(x[r]) for name, x in samples.items()} for r in rows]
