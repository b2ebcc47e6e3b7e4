"""ONNX Runtime sessions as a device runs them: one thread, no spinning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

PROVIDER = "CPUExecutionProvider"
Array = NDArray[np.generic]


def options() -> Any:
    """One intra-op thread, spinning off and every graph optimization on: as a device serves."""
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = 1
    chosen.inter_op_num_threads = 1
    chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen.log_severity_level = 3
    return chosen


def open_session(model: Path | bytes) -> ort.InferenceSession:
    """A session with ``options``.

    Raises:
        RuntimeError: the provider that runs is not the one asked for.
    """
    source = model if isinstance(model, bytes) else str(model)
    session = ort.InferenceSession(source, options(), providers=[PROVIDER])
    # A provider that is missing or misspelt silently becomes another one.
    if session.get_providers() != [PROVIDER]:
        msg = f"asked for {PROVIDER}, got {session.get_providers()}"
        raise RuntimeError(msg)
    return session


def batches(x: Array, size: int) -> Iterator[Array]:
    """Consecutive parts of at most ``size`` samples."""
    for start in range(0, len(x), size):
        yield x[start : start + size]


def fixed_batch(session: Any) -> int | None:
    """The batch size that a graph insists on, or None when it takes any."""
    shape = session.get_inputs()[0].shape
    first = shape[0] if shape else None
    return first if isinstance(first, int) and first > 0 else None


def infer(session: Any, x: Array, *, batch: int = 256) -> Array:
    """The first output for all of ``x`` (n, …), computed in batches.

    A graph of a fixed batch size gets that, its last batch filled up with the last sample.
    """
    name_in = session.get_inputs()[0].name
    name_out = session.get_outputs()[0].name
    fixed = fixed_batch(session)
    parts = []
    for part in batches(x, fixed or batch):
        missing = 0 if fixed is None else fixed - len(part)
        whole = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
        parts.append(session.run([name_out], {name_in: whole})[0][: len(part)])
    return np.concatenate(parts)
