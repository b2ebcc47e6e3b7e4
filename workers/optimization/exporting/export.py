"""From a trained net to one ONNX file that takes raw inputs and gives probabilities."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from schemas.job import JobCause
from schemas.measure import MAX_FILE_BYTES
from schemas.signature import Signature
from workers.blame import user_code
from workers.errors import JobFailed
from workers.files import write_atomic
from workers.optimization.session import Array, infer, open_session

OPSET = 20
PARITY_TOLERANCE = 1e-4
"""Largest difference of a probability between torch and ONNX Runtime, both in FP32."""


class Servable(nn.Module):
    """The net with softmax: uint8 in, probabilities out, nothing left for the caller."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities, float32 (N, classes)."""
        return torch.softmax(self.net(x).to(torch.float32), dim=1)


@dataclass(frozen=True, slots=True)
class Exported:
    """The file, its opset and the parity measured on ``samples`` real inputs."""

    path: Path
    opset: int
    parity_max_abs: float
    samples: int


def export(
    net: nn.Module,
    signature: Signature,
    samples: Array,
    path: Path,
    *,
    tolerance: float = PARITY_TOLERANCE,
) -> Exported:
    """Write ``net`` as ONNX and compare both on real samples.

    Args:
        net: the trained net; its forward takes the served dtype.
        signature: names and types of the one input and the one output.
        samples: real inputs, (n ≥ 2, …), of the served dtype.
        path: where to write.
        tolerance: see ``PARITY_TOLERANCE``.

    Raises:
        JobFailed: cause parity, when the outputs differ by more; user_code, when the net
            cannot be exported.
    """
    servable = Servable(net).eval().cpu()
    model = _to_onnx(servable, signature, torch.from_numpy(samples[:2].copy()))
    _anonymize(model)
    data = model.SerializeToString()
    if len(data) > MAX_FILE_BYTES:
        detail = f"the exported model has {len(data)} bytes, more than {MAX_FILE_BYTES}"
        raise JobFailed(JobCause.USER_CODE, detail)
    write_atomic(path, data)
    difference = parity(servable, path, samples)
    # A NaN compares false with everything, and must not pass.
    if not difference <= tolerance:
        detail = (
            f"torch and ONNX Runtime differ by {difference:.3g} on {len(samples)} samples "
            f"(allowed {tolerance:.3g}); an operator is exported with another meaning"
        )
        raise JobFailed(JobCause.PARITY, detail)
    return Exported(path, OPSET, difference, len(samples))


def parity(servable: nn.Module, path: Path, samples: Array) -> float:
    """The largest absolute difference of an output between torch and ONNX Runtime."""
    with torch.inference_mode():
        expected = servable(torch.from_numpy(samples)).numpy()
    found = infer(open_session(path), samples)
    return float(np.max(np.abs(expected - found)))


def _to_onnx(servable: nn.Module, signature: Signature, example: Tensor) -> onnx.ModelProto:
    with _quiet(), user_code():
        program = torch.onnx.export(
            servable,
            (example,),
            dynamo=True,
            external_data=False,
            input_names=[signature.inputs[0].name],
            output_names=[signature.outputs[0].name],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65536)},),
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise JobFailed(JobCause.INTERNAL, "torch.onnx.export gave no program")
    model: onnx.ModelProto = program.model_proto
    return model


def _anonymize(model: onnx.ModelProto) -> None:
    """Drop the stack traces and source paths that the exporter leaves in the graph."""
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("doc_string")
    model.ClearField("metadata_props")
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own internals; a job's log is for the job."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
