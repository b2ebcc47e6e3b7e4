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


def open_session(model: Path | bytes) -> ort.InferenceSession:
    """A session with one intra-op thread, spinning off and every graph optimization on.

    Raises:
        RuntimeError: the provider that runs is not the one asked for.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    session = ort.InferenceSession(source, options, providers=[PROVIDER])
    # A provider that is missing or misspelt silently becomes another one.
    if session.get_providers() != [PROVIDER]:
        msg = f"asked for {PROVIDER}, got {session.get_providers()}"
        raise RuntimeError(msg)
    return session


def batches(x: Array, size: int) -> Iterator[Array]:
    """Consecutive parts of at most ``size`` samples."""
    for start in range(0, len(x), size):
        yield x[start : start + size]


def infer(session: Any, x: Array, *, batch: int = 256) -> Array:
    """The first output for all of ``x`` (n, …), computed in batches."""
    name_in = session.get_inputs()[0].name
    name_out = session.get_outputs()[0].name
    parts = [session.run([name_out], {name_in: part})[0] for part in batches(x, batch)]
    return np.concatenate(parts)
